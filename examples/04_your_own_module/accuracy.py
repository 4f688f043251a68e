"""Hold the float and the int8 graph against the labels, as an app would run them: onnxruntime alone."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import

import onnxruntime as ort
from tumours import BUILD, split

_, x_test, _, y_test = split()
for name in ("float-opset20.onnx", "cpu-x86/model.onnx", "arm64/model.onnx"):
    session = ort.InferenceSession(BUILD / "packages" / name, providers=["CPUExecutionProvider"])
    (benign,) = session.run(["benign"], {"measurements": x_test})
    print(f"{name:20} {((benign[:, 0] > 0.5) == y_test).mean():.1%} of {len(y_test)} right")
