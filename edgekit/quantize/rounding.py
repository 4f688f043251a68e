"""Rounding that looks at the data: each weight's error is made up for by the weights still to be rounded.

Rounding to nearest minimizes the error of the weights. What counts is the error of `x @ W` on real `x`, and
there neighbouring errors can cancel: after one input channel's weights are rounded, the rest is moved by
what least squares says makes up for it.

Source: Frantar et al. 2022, GPTQ, arXiv:2210.17323, algorithm 1 (with its Cholesky form), which follows
Hassibi and Stork 1993, Optimal Brain Surgeon.
"""

from __future__ import annotations

import numpy as np

# Share of the mean diagonal that is added to it; the paper's value.
_DAMPING = 0.01
_BLOCK = 64


def compensated_codes(weight: np.ndarray, scale: np.ndarray, rows: np.ndarray, qmax: int = 127) -> np.ndarray:
    """Round a weight to codes so that its products with `rows` stay close.

    Args:
        weight: [K, N], float32.
        scale: Of the codes, [N] or a scalar.
        rows: Vectors that the weight is multiplied with, [rows, K]; quantized as they will be.
        qmax: Codes lie in -qmax..qmax.

    Returns:
        int8 codes, [K, N].
    """
    channels = len(weight)
    gram = rows.astype(np.float64).T @ rows.astype(np.float64)
    dead = np.diag(gram) == 0
    gram[dead, dead] = 1.0
    gram[np.diag_indices(channels)] += _DAMPING * float(np.mean(np.diag(gram)))
    # Channels with much energy go first: what is made up for later costs least there.
    order = np.argsort(-np.diag(gram), kind="stable")
    inverse = np.linalg.inv(gram[np.ix_(order, order)])
    # Upper Cholesky factor of the inverse: its rows are the updates for each elimination step.
    upper = np.linalg.cholesky(inverse).T
    left = (weight[order] / scale).astype(np.float64)
    codes = np.empty(weight.shape, np.int8)
    for start in range(0, channels, _BLOCK):
        stop = min(start + _BLOCK, channels)
        errors = np.empty((stop - start, weight.shape[1]))
        for k in range(start, stop):
            rounded = np.clip(np.rint(left[k]), -qmax, qmax)
            codes[order[k]] = rounded.astype(np.int8)
            errors[k - start] = (left[k] - rounded) / upper[k, k]
            left[k + 1 : stop] -= np.outer(upper[k, k + 1 : stop], errors[k - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return codes
