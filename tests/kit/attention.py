"""Attention steps with a cache of their own, and attention in float64."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, quants
from kit.ops import ISAS, vector
from numpy.typing import NDArray

from moesaic.runtime._native import ops

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    heads: int = 4
    kv_heads: int = 2
    k_dim: int = 32
    v_dim: int = 32
    window: int = 0
    softcap: float = 0.0
    dtype: str = "f16"
    sinks: bool = False
    seed: int = 0

    @property
    def scale(self) -> float:
        return float(np.float32(self.k_dim**-0.5))

    def sink_values(self) -> Array | None:
        rng = np.random.default_rng(self.seed)
        return rng.normal(0, 2, self.heads).astype(np.float32) if self.sinks else None

    def inputs(self, rows: int, seed: int = 0, spread: float = 1.0) -> tuple[Array, Array, Array]:
        """Random q, k, v of `rows` tokens."""
        rng = np.random.default_rng([self.seed, seed])
        widths = (self.heads * self.k_dim, self.kv_heads * self.k_dim, self.kv_heads * self.v_dim)
        spreads = (spread, spread, 1.0)
        return tuple(
            (rng.standard_normal((rows, width)) * s).astype(np.float32)
            for width, s in zip(widths, spreads, strict=True)
        )


class Attention:
    """The Attention step of a shape. `append` adds rows of q, k, v to sequences."""

    def __init__(self, shape: Shape, *, max_rows: int = 64, **options: Any) -> None:
        s = shape
        attrs = {"cache": 0, "heads": s.heads, "kv_heads": s.kv_heads, "k_dim": s.k_dim}
        attrs |= {"v_dim": s.v_dim, "scale": s.scale, "window": s.window, "softcap": s.softcap}
        self.shape = shape
        self.max_rows = max_rows
        self.step = ops.Step(
            "Attention",
            attrs,
            [s.heads * s.k_dim, s.kv_heads * s.k_dim, s.kv_heads * s.v_dim, 1, 1],
            [s.heads * s.v_dim],
            weights=[vector(s.sink_values())],
            cache=(s.kv_heads, s.k_dim, s.v_dim, s.window, s.dtype),
            max_rows=max_rows,
            **({"isa": ISAS[-1]} | options),
        )

    def append(self, qkv: tuple[Array, Array, Array], sequences: NDArray[np.int32]) -> Array:
        return self.step.attend(list(qkv), sequences)[0]

    def sequence(self, qkv: tuple[Array, Array, Array], chunk: int | None = None) -> Array:
        """All rows as one new sequence, `chunk` at a time; the sequence is freed."""
        sequence = self.step.create()
        y = self.extend(qkv, sequence, chunk)
        self.step.free(sequence)
        return y

    def extend(
        self, qkv: tuple[Array, Array, Array], sequence: int, chunk: int | None = None
    ) -> Array:
        chunk = chunk or self.max_rows
        parts = []
        for start in range(0, len(qkv[0]), chunk):
            part = tuple(x[start : start + chunk] for x in qkv)
            parts.append(self.append(part, np.full(len(part[0]), sequence, np.int32)))
        return np.concatenate(parts)


def stored(x: Array, dtype: str) -> NDArray[np.float64]:
    """Heads [..., dim] as a cache of a type gives them back, by the word of numpy and gguf."""
    if dtype == "f32":
        return x.astype(np.float64)
    if dtype == "f16":
        return x.astype(np.float16).astype(np.float64)
    kind = GGMLQuantizationType[dtype.upper()]
    dim = x.shape[-1]
    padding = [*[(0, 0)] * (x.ndim - 1), (0, -dim % 32)]
    blocks = quants.quantize(np.pad(x, padding), kind)
    return quants.dequantize(blocks, kind)[..., :dim].astype(np.float64)


def attend(shape: Shape, q: Array, k: Array, v: Array) -> tuple[NDArray[np.float64], float]:
    """What the rows of one sequence see, in float64 over keys and values as the cache holds them.

    Also returns the error that float32 may make: a score's is relative, and its exponential's
    therefore grows with the largest score.
    """
    n, group = len(q), shape.heads // shape.kv_heads
    q = q.astype(np.float64).reshape(n, shape.heads, shape.k_dim)
    k = stored(k.reshape(n, shape.kv_heads, shape.k_dim), shape.dtype)
    v = stored(v.reshape(n, shape.kv_heads, shape.v_dim), shape.dtype)
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    seen = (j <= i) & ((i - j < shape.window) if shape.window else True)
    sinks = shape.sink_values()
    y = np.empty((n, shape.heads, shape.v_dim))
    largest = 0.0
    for h in range(shape.heads):
        z = q[:, h] @ k[:, h // group].T * shape.scale
        largest = max(largest, np.abs(z).max())
        if shape.softcap:
            z = shape.softcap * np.tanh(z / shape.softcap)
        z = np.where(seen, z, -np.inf)
        top = z.max(axis=1, keepdims=True)
        if sinks is not None:
            top = np.maximum(top, sinks[h])
        p = np.exp(z - top)
        total = p.sum(axis=1, keepdims=True)
        if sinks is not None:
            total = total + np.exp(float(sinks[h]) - top)
        y[:, h] = p / total @ v[:, h // group]
    return y.reshape(n, -1), float(np.abs(v).max() * (1e-6 + 1e-7 * largest))
