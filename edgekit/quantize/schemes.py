"""Scales and zero points: the arithmetic of affine quantization, in plain numpy.

    real = scale * (code - zero_point)

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877; ONNX operator QuantizeLinear (round half to even).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ActivationScheme:
    """How activations become 8-bit codes.

    Attributes:
        dtype: `uint8` or `int8`.
        symmetric: The zero point is the middle of the codes, and the range is as wide on both sides.
    """

    dtype: str
    symmetric: bool

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def qmax(self) -> int:
        """Highest code."""
        return int(np.iinfo(self.dtype).max)

    def affine(self, low: float, high: float) -> Affine:
        """Return the scale and zero point that cover a range.

        The range is widened to hold 0, which must be exact: padding and ReLU depend on it.

        Args:
            low: Lower end, in real units.
            high: Upper end.
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        if self.symmetric:
            # -128 is left unused on the negative side, so that both sides have the same step.
            bound = max(-low, high)
            zero = 0 if self.dtype == "int8" else 128
            return Affine(_positive(bound / 127), zero, self)
        scale = _positive((high - low) / (self.qmax - self.qmin))
        zero = round(self.qmin - low / scale)
        return Affine(scale, int(np.clip(zero, self.qmin, self.qmax)), self)


@dataclass(frozen=True)
class Affine:
    """One scale and zero point for a whole tensor."""

    scale: float
    zero_point: int
    scheme: ActivationScheme

    @property
    def low(self) -> float:
        """Smallest real value that has a code."""
        return self.scale * (self.scheme.qmin - self.zero_point)

    @property
    def high(self) -> float:
        """Largest real value that has a code."""
        return self.scale * (self.scheme.qmax - self.zero_point)

    def fake(self, x: np.ndarray) -> np.ndarray:
        """Quantize and dequantize an array of any shape, elementwise, in float32."""
        scale, zero = np.float32(self.scale), np.float32(self.zero_point)
        codes = np.rint(x / scale)
        codes += zero
        np.clip(codes, self.scheme.qmin, self.scheme.qmax, out=codes)
        codes -= zero
        codes *= scale
        return codes


def quantize_weight(
    weight: np.ndarray, axis: int | None, *, reduce_range: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a weight symmetrically to int8.

    Args:
        weight: Any shape.
        axis: Axis of the output channels, which get a scale each; None for one scale.
        reduce_range: Codes in -64..64 instead of -127..127, so that pairs of products with 8-bit
            activations fit 16-bit lanes: 2 * 255 * 64 <= 32767.
            Source: Intel intrinsics guide, VPMADDUBSW.

    Returns:
        int8 codes of the weight's shape, and float32 scales, [channels] or a scalar.
    """
    qmax = 64 if reduce_range else 127
    scale = _symmetric_scale(weight, axis, qmax)
    shaped = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    codes = np.clip(np.rint(weight / shaped), -qmax, qmax).astype(np.int8)
    return codes, scale


def quantize_product_weight(
    weight: np.ndarray, *, per_channel: bool, saturation_safe: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize the weight of a matrix product, where needed so that saturating kernels stay exact.

    `VPMADDUBSW` multiplies uint8 activations with int8 weights and adds neighbours along K in 16 bits. No
    activation can overflow them when in every pair (2i, 2i + 1) the positive codes sum to at most 128 and
    the negative ones to at least -128, for 255 * 128 <= 32767. Codes are scaled just far enough for that,
    which loses less than cutting every code to 7 bits: the largest codes rarely are neighbours.

    Args:
        weight: [K, N], float32.
        per_channel: One scale per column instead of one for all.
        saturation_safe: Keep the promise above.

    Returns:
        int8 codes [K, N], and float32 scales, [N] or a scalar.

    Source: Intel intrinsics guide, VPMADDUBSW; onnxruntime core/mlas/lib/qgemm_kernel_avx2.cpp (packing
    order along K).
    """
    scale = _symmetric_scale(weight, 1 if per_channel else None, 127)
    if saturation_safe:
        pairs = pair_sums(weight)  # in real units
        # Rounding moves each of two codes by half a step, so the real sums may fill 127 steps.
        needed = pairs / 127 if per_channel else pairs.max(initial=0.0) / 127
        scale = np.maximum(scale, needed).astype(np.float32)
    scale = short_scale(scale)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def short_scale(scale: np.ndarray) -> np.ndarray:
    """Return the next larger scales that float16 holds exactly, as float32, so that a file can store those.

    Scales out of float16's normal range stay as they are. Codes are made after this, so nothing is rounded
    twice: a step is wider by less than a thousandth.

    Args:
        scale: Positive float32, any shape.
    """
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
        half = np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half)
    normal = (half >= np.finfo(np.float16).tiny) & np.isfinite(half)
    return np.where(normal, half, scale).astype(np.float32)


def with_room_for_bias(
    codes: np.ndarray, scale: np.ndarray, axis: int, step: float, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coarsen the codes of channels whose bias would not fit the int32 accumulator.

    The bias is held in steps of activation scale times weight scale. A channel whose weights are nearly 0
    has steps so small that a common bias overflows; with larger ones its weights lose what nobody sees.

    Args:
        codes: int8 weight.
        scale: float32, [channels] or a scalar.
        axis: Axis of the channels.
        step: The activation's scale.
        bias: [channels].

    Returns:
        Codes and scales; the same where every bias fits in half the accumulator.

    Source: onnxruntime quantization/qdq_quantizer.py, _adjust_weight_scale_for_int32_bias.
    """
    needed = np.abs(bias.astype(np.float64)) / (step * 2.0**30)
    wider = np.maximum(scale, needed if scale.ndim else needed.max(initial=0.0)).astype(np.float32)
    if np.array_equal(wider, scale):
        return codes, scale
    ratio = scale.astype(np.float64) / wider
    shaped = ratio if not scale.ndim else ratio.reshape([-1 if i == axis else 1 for i in range(codes.ndim)])
    return np.rint(codes * shaped).astype(np.int8), wider


def pair_sums(weight: np.ndarray) -> np.ndarray:
    """Return the most that any two neighbours along K add up to, in size, per column: [N] of a weight [K, N].

    Positive and negative parts are added apart, since an activation may be zero for either neighbour. A
    product is certified not to saturate where no sum of int8 codes is above 128.
    """
    signed = weight.astype(np.float32)
    if len(signed) % 2:
        signed = np.pad(signed, ((0, 1), (0, 0)))
    positive, negative = np.maximum(signed, 0), np.maximum(-signed, 0)
    return np.maximum(
        (positive[0::2] + positive[1::2]).max(axis=0), (negative[0::2] + negative[1::2]).max(axis=0)
    )


def dequantize_weight(codes: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the real values of int8 codes; the inverse of `quantize_weight` up to rounding."""
    shaped = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(codes.ndim)])
    return codes.astype(np.float32) * shaped


_TINY = float(np.finfo(np.float32).tiny)


def _symmetric_scale(weight: np.ndarray, axis: int | None, qmax: int) -> np.ndarray:
    """Return the scale that gives the largest weight the code `qmax`, per channel of an axis or for all."""
    axes = tuple(i for i in range(weight.ndim) if i != axis) if axis is not None else None
    peak = np.abs(weight).max(axis=axes)
    return np.where(peak > np.float32(_TINY * qmax), peak / qmax, 1.0).astype(np.float32)


def _positive(scale: float) -> float:
    """Return a scale that float32 can divide by; a constant zero tensor gets 1."""
    return float(np.float32(scale)) if scale > _TINY else 1.0
