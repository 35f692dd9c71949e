"""The quantised activations of docs/plan-format.md and what a product with them must be."""

from dataclasses import dataclass

import numpy as np
from kit.strip_bytes import FLOAT_CODECS, Strips
from numpy.typing import NDArray

EPS = 2.0**-24  # half an ulp of float32, relative


@dataclass
class Quantised:
    """Codes [n, cols] and scales [n, cols / 32]."""

    codes: NDArray[np.int64]
    scales: NDArray[np.float32]

    def values(self) -> NDArray[np.float64]:
        """What the codes stand for, [n, cols]."""
        return self.codes * np.repeat(self.scales.astype(np.float64), 32, axis=1)


def quantise(x: NDArray[np.float32]) -> Quantised:
    """Finite float32 [n, cols], by the text of the format."""
    blocks = x.reshape(len(x), -1, 32)
    amax = np.abs(blocks).max(axis=2).astype(np.float32)
    used = amax >= np.float32(2.0**-100)
    safe = np.where(used, amax, np.float32(1))
    inverse = np.where(used, np.float32(127) / safe, np.float32(0))
    codes = np.rint(blocks * inverse[:, :, None]).astype(np.int64)
    scales = np.where(used, safe / np.float32(127), np.float32(0)).astype(np.float32)
    return Quantised(codes.reshape(x.shape), scales)


def product(
    strips: Strips, x: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x times the matrix in float64 as quantised, and a bound on the rounding."""
    if strips.codec in FLOAT_CODECS:
        weights, exact = strips.weights(), x.astype(np.float64)
        steps = strips.cols
        return exact @ weights.T, steps * EPS * (np.abs(exact) @ np.abs(weights).T) + 1e-44
    exact = quantise(x).values()
    values, scale, minimum = strips.sums_and_scales()
    result = exact @ (values * scale - minimum).T
    # Each of the (one to two) terms a column block adds is rounded three times, and so is the sum.
    terms = np.zeros(result.shape)
    for start in range(0, strips.cols, 16):
        span = slice(start, start + 16)
        terms += np.abs(exact[:, span] @ (values * scale)[:, span].T)
        terms += np.abs(exact[:, span] @ minimum[:, span].T)
    steps = 2 * strips.cols // 32 + 4
    return result, steps * EPS * terms + 1e-44


def quantisation_bound(strips: Strips, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far the quantised product may be from the exact one: half a code a column."""
    if strips.codec in FLOAT_CODECS:
        return np.zeros((len(x), strips.rows))
    half = np.repeat(quantise(x).scales.astype(np.float64), 32, axis=1) * (0.5 + 1e-4)
    return half @ np.abs(strips.weights()).T
