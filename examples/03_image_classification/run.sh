#!/bin/sh
# Train a small CNN, a small ViT and a small MobileNetV2 on handwritten digits, and take both to int8 packages.
set -eu
cd "$(dirname "$0")"

python cnn.py
python -m edgekit export cnn:trained --task image-classification --target cpu-x86 --target arm64 \
    --calibration build/train.npz --validation build/test.npz --validation-samples 600 \
    --gate accuracy_drop=0.5 -o build/cnn --force

python vit.py
python -m edgekit export build/digits-vit --target cpu-x86 --target arm64 \
    --calibration build/train --validation build/test --validation-samples 600 \
    --gate accuracy_drop=0.5 -o build/vit --force

python mobilenet.py
python -m edgekit export build/digits-mobilenet --target cpu-x86 --target arm64 \
    --calibration build/train --validation build/test --validation-samples 600 \
    --gate accuracy_drop=0.5 -o build/mobilenet --force
