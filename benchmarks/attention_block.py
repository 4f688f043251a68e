"""One int8 self-attention as edgekit ships it, beside ONNX Runtime's QAttention with the same static scales.

Static quantization never makes a QAttention, so both are built by hand: from a float activation over the
packed projection to the context, with the widths of all-MiniLM-L6-v2.

Source: onnxruntime docs ContribOperators.md, com.microsoft.QAttention (activations uint8, weight int8).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx

from benchmarks.timing import interleave
from edgekit.runtime import open_session
from edgekit.validate.latency import bootstrap_ratio

WIDTH, HEADS = 384, 12
SIZE = WIDTH // HEADS
POINTS = ((1, 16), (1, 128), (8, 64))
_SCALE, _ZERO = 0.03, 128

_SHIPPED = f"""
attention (float[rows, {WIDTH}] x, float[batch, 1, 1, sequence] bias, int64[4] heads)
=> (float[rows, {WIDTH}] y)
<float x_scale = {{{_SCALE}}}, uint8 x_zero = {{{_ZERO}}}, float root = {{{SIZE**-0.5}}},
 int64[2] flat = {{-1, {WIDTH}}}, int64[3] thirds = {{{WIDTH}, {WIDTH}, {WIDTH}}}>
{{
   xq = QuantizeLinear (x, x_scale, x_zero)
   xd = DequantizeLinear (xq, x_scale, x_zero)
   wd = DequantizeLinear <axis = 1> (w, w_scale, w_zeros)
   bd = DequantizeLinear <axis = 0> (b, b_scale, b_zeros)
   qkv = Gemm (xd, wd, bd)
   q, k, v = Split <axis = -1> (qkv, thirds)
   q4 = Reshape (q, heads)
   k4 = Reshape (k, heads)
   v4 = Reshape (v, heads)
   qt = Transpose <perm = [0, 2, 1, 3]> (q4)
   kt = Transpose <perm = [0, 2, 3, 1]> (k4)
   vt = Transpose <perm = [0, 2, 1, 3]> (v4)
   scores = MatMul (qt, kt)
   scaled = Mul (scores, root)
   masked = Add (scaled, bias)
   p = Softmax <axis = -1> (masked)
   context = MatMul (p, vt)
   back = Transpose <perm = [0, 2, 1, 3]> (context)
   y = Reshape (back, flat)
}}
"""

_QATTENTION = f"""
attention (float[rows, {WIDTH}] x, int32[batch, sequence] mask, int64[3] tokens) => (float[rows, {WIDTH}] y)
<float x_scale = {{{_SCALE}}}, uint8 x_zero = {{{_ZERO}}}, int64[2] flat = {{-1, {WIDTH}}}>
{{
   xq = QuantizeLinear (x, x_scale, x_zero)
   x3 = Reshape (xq, tokens)
   y3 = com.microsoft.QAttention <num_heads = {HEADS}> (x3, w, bias, x_scale, w_scale, mask, x_zero, w_zeros)
   y = Reshape (y3, flat)
}}
"""


def models() -> dict[str, bytes]:
    """Return both forms with the same weights: name -> serialized model."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (WIDTH, 3 * WIDTH)).astype(np.int8)
    scale = rng.uniform(2e-4, 6e-4, 3 * WIDTH).astype(np.float32)
    codes = rng.integers(-5000, 5000, 3 * WIDTH).astype(np.int32)
    shared = {"w": weight, "w_scale": scale, "w_zeros": np.zeros(3 * WIDTH, np.int8)}
    b_scale = (np.float32(_SCALE) * scale).astype(np.float32)
    shipped = {"b": codes, "b_scale": b_scale, "b_zeros": np.zeros(3 * WIDTH, np.int32)}
    fused = {"bias": (codes * b_scale).astype(np.float32)}
    return {"shipped": _model(_SHIPPED, shared | shipped), "qattention": _model(_QATTENTION, shared | fused)}


def _model(text: str, arrays: dict[str, np.ndarray]) -> bytes:
    head = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
    model = onnx.parser.parse_model(head + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in arrays.items())
    return model.SerializeToString()


def inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    """Return an activation in the range of the scales, and what a model computes once for all its layers."""
    x = np.random.default_rng(1).normal(0, 1, (batch * length, WIDTH)).astype(np.float32)
    return {
        "x": x,
        "mask": np.ones((batch, length), np.int32),
        "bias": np.zeros((batch, 1, 1, length), np.float32),
        "heads": np.array([batch, length, HEADS, SIZE], np.int64),
        "tokens": np.array([batch, length, WIDTH], np.int64),
    }


def measure(turns: int = 100) -> dict[str, Any]:
    """Return the shipped form's time over QAttention's at each input shape, and how far their outputs are."""
    sessions = {name: open_session(model) for name, model in models().items()}
    shapes, furthest = {}, 0.0
    for batch, length in POINTS:
        every = inputs(batch, length)
        feeds = {n: {v.name: every[v.name] for v in s.get_inputs()} for n, s in sessions.items()}
        first, second = (session.run(None, feeds[name])[0] for name, session in sessions.items())
        furthest = max(furthest, float(np.abs(first - second).max()))
        calls = {n: partial(session.run, None, feeds[n]) for n, session in sessions.items()}
        cpu = interleave(calls, turns=turns, seconds=20)["cpu"]
        gain, low, high = bootstrap_ratio(np.array(cpu["shipped"]), np.array(cpu["qattention"]))
        shapes[f"{batch}x{length}"] = {"gain": gain, "low": low, "high": high}
    return {"shapes": shapes, "largest_difference": furthest}


if __name__ == "__main__":
    print(measure())
