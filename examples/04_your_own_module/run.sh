#!/bin/sh
# Train a small network on a table, take it to int8 packages, and count its errors before and after.
set -eu
cd "$(dirname "$0")"

python tumours.py
python -m edgekit export tumours:trained --target cpu-x86 --target arm64 \
    --calibration build/train.npz --validation build/test.npz --validation-samples 200 \
    -o build/packages --force --keep-float
python accuracy.py
