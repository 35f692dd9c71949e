"""Random but valid GGUF blocks of a wanted spread, made fast enough to be bound by the disk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Random = np.random.Generator

# Root mean square of the codes below, before any scale.
NIBBLE = 4.64  # uniform 0..15 about 8 or 7.5
FIVE_BITS = 9.25
SIX_BITS = 18.48
THREE_BITS = 2.35  # -4..3
TWO_BITS = 1.12  # 0..3 about 1.5
NON_LINEAR = 67.4  # IQ4_NL's table
INT8 = 73.9
E2M1 = 5.85  # twice the sixteen MXFP4 values
SCALE_6 = 48.4  # uniform 32..63


def _codes(rng: Random, n: int, size: int) -> Bytes:
    return rng.integers(0, 256, (n, size), dtype=np.uint8)


def _half(values: NDArray[np.float64]) -> Bytes:
    return values.astype("<f2")[:, None].view(np.uint8)


def _spread(rng: Random, n: int, centre: float) -> NDArray[np.float64]:
    """Scales around ``centre``, as different blocks have."""
    return centre * rng.uniform(0.75, 1.25, n)


def _simple(size: int, rms: float) -> Callable[[Random, int, float], Bytes]:
    """A float16 scale, then ``size`` bytes that may take any value.

    Codes run from -8 to 7 or alike, so scales of both signs bring the mean to zero.
    """

    def make(rng: Random, n: int, sigma: float) -> Bytes:
        d = _spread(rng, n, sigma / rms) * rng.choice([-1, 1], n)
        return np.concatenate([_half(d), _codes(rng, n, size)], axis=1)

    return make


def _plus_minimum(size: int, levels: int, rms: float) -> Callable[[Random, int, float], Bytes]:
    """Q4_1 and Q5_1: a scale, and a minimum that centres the codes."""

    def make(rng: Random, n: int, sigma: float) -> Bytes:
        d = _spread(rng, n, sigma / rms)
        return np.concatenate(
            [_half(d), _half(-d * (levels - 1) / 2), _codes(rng, n, size)], axis=1
        )

    return make


def _with_minimum(size: int, levels: int, rms: float) -> Callable[[Random, int, float], Bytes]:
    """Q4_K and Q5_K: equal 6-bit scales and minima, so that codes are centred."""

    def make(rng: Random, n: int, sigma: float) -> Bytes:
        d = _spread(rng, n, sigma / (rms * SCALE_6))
        sc = rng.integers(32, 64, (n, 8), dtype=np.uint8)
        first = sc[:, :4] | (sc[:, 4:] >> 4) << 6
        last = (sc[:, 4:] & 15) * np.uint8(17)
        parts = [_half(d), _half(d * (levels - 1) / 2), first, first, last, _codes(rng, n, size)]
        return np.concatenate(parts, axis=1)

    return make


def _q6_k(rng: Random, n: int, sigma: float) -> Bytes:
    scales = rng.integers(32, 64, (n, 16)) * rng.choice([-1, 1], (n, 16))
    d = _spread(rng, n, sigma / (SIX_BITS * SCALE_6))
    return np.concatenate(
        [_codes(rng, n, 192), scales.astype(np.int8).view(np.uint8), _half(d)], axis=1
    )


def _q2_k(rng: Random, n: int, sigma: float) -> Bytes:
    d = _spread(rng, n, sigma / (TWO_BITS * 11.7))
    sc = rng.integers(8, 16, (n, 16), dtype=np.uint8) * np.uint8(17)  # equal scales and minima
    return np.concatenate([sc, _codes(rng, n, 64), _half(d), _half(1.5 * d)], axis=1)


def _q3_k(rng: Random, n: int, sigma: float) -> Bytes:
    """Any codes and scales, which have six bits about 0."""
    d = _spread(rng, n, sigma / (THREE_BITS * SIX_BITS))
    return np.concatenate([_codes(rng, n, 108), _half(d)], axis=1)


def _iq4_xs(rng: Random, n: int, sigma: float) -> Bytes:
    d = _spread(rng, n, sigma / (NON_LINEAR * SIX_BITS))
    return np.concatenate([_half(d), _codes(rng, n, 134)], axis=1)


def _mxfp4(rng: Random, n: int, sigma: float) -> Bytes:
    exponent = round(128 + np.log2(sigma / E2M1)) + rng.choice([-1, 0, 0, 0, 1], (n, 1))
    return np.concatenate([exponent.astype(np.uint8), _codes(rng, n, 16)], axis=1)


def _floats(dtype: str) -> Callable[[Random, int, float], Bytes]:
    def make(rng: Random, n: int, sigma: float) -> Bytes:
        x = sigma * rng.standard_normal((n, 1), dtype=np.float32)
        return x.astype(dtype).view(np.uint8)

    return make


def _bf16(rng: Random, n: int, sigma: float) -> Bytes:
    return _floats("<f4")(rng, n, sigma)[:, 2:]


MAKERS: dict[Type, Callable[[Random, int, float], Bytes]] = {
    Type.F32: _floats("<f4"),
    Type.F16: _floats("<f2"),
    Type.BF16: _bf16,
    Type.Q4_0: _simple(16, NIBBLE),
    Type.Q4_1: _plus_minimum(16, 16, NIBBLE),
    Type.Q5_0: _simple(20, FIVE_BITS),
    Type.Q5_1: _plus_minimum(20, 32, FIVE_BITS),
    Type.Q8_0: _simple(32, INT8),
    Type.Q2_K: _q2_k,
    Type.Q3_K: _q3_k,
    Type.Q4_K: _with_minimum(128, 16, NIBBLE),
    Type.Q5_K: _with_minimum(160, 32, FIVE_BITS),
    Type.Q6_K: _q6_k,
    Type.IQ4_NL: _simple(16, NON_LINEAR),
    Type.IQ4_XS: _iq4_xs,
    Type.MXFP4: _mxfp4,
}


def random_blocks(kind: Type, n: int, sigma: float, rng: Random) -> Bytes:
    """Blocks [n, bytes of one block] that decode to zero-mean values of spread about ``sigma``."""
    blocks = MAKERS[kind](rng, n, sigma)
    assert blocks.shape[1] == GGML_QUANT_SIZES[kind][1]
    return np.ascontiguousarray(blocks)


class BlockStream:
    """Endless blocks out of one random chunk per (type, spread), each read where the last ended.

    A chunk holds a prime number of blocks, so rows and experts don't repeat at the same places.
    Memory: about 8 MB for each pair asked for.
    """

    CHUNK_BLOCKS = 249_989
    CHUNK_BYTES = 8 << 20

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._chunks: dict[tuple[Type, float], memoryview] = {}
        self._at: dict[tuple[Type, float], int] = {}

    def read(self, kind: Type, sigma: float, limit: int) -> memoryview:
        """At most ``limit`` bytes, at least one; whole blocks once a tensor has been read whole."""
        key = (kind, sigma)
        if key not in self._chunks:
            count = min(self.CHUNK_BLOCKS, self.CHUNK_BYTES // GGML_QUANT_SIZES[kind][1] | 1)
            blocks = random_blocks(kind, count, sigma, self._rng)
            self._chunks[key], self._at[key] = memoryview(blocks.tobytes()), 0
        chunk, at = self._chunks[key], self._at[key]
        piece = chunk[at : at + limit]
        self._at[key] = (at + len(piece)) % len(chunk)
        return piece
