"""OnnxModel × data × profile -> OnnxModel: static int8 by the target's rules."""

from edgekit.quantize.calibrate import Calibration, calibrate
from edgekit.quantize.static import quantize

__all__ = ["Calibration", "calibrate", "quantize"]
