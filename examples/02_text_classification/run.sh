#!/bin/sh
# Train a tiny BERT that tells which part of Python a text is about, and take it to int8 packages.
set -eu
cd "$(dirname "$0")"

python train.py
python -m edgekit export build/docstrings-bert --target cpu-x86 --target arm64 \
    --calibration build/train.jsonl --validation build/test.jsonl --validation-samples 600 \
    --column text --label-column label --gate accuracy_drop=0.5 -o build/packages --force
