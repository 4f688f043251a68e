"""Why a graph is as fast as it is: ONNX Runtime's own optimized graph and profile -> Explanation."""

from edgekit.validate.explanation.explain import explain
from edgekit.validate.explanation.record import Explanation

__all__ = ["Explanation", "explain"]
