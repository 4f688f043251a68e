"""From a PyTorch module to ONNX and its recorded outputs: `TorchModel` -> `OnnxModel` + `Golden`.

The only room that knows both torch and onnx.
"""

from edgekit.to_onnx.convert import export_model
from edgekit.to_onnx.record import record_golden

__all__ = ["export_model", "record_golden"]
