"""Tables of rotary position embeddings, computed in float64."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moesaic.partitioner.arch._builder import Builder
from moesaic.partitioner.arch._hyper import MAX_CONTEXT, count
from moesaic.partitioner.gguf import Metadata

SHORT_DIVISORS, LONG_DIVISORS = "rope_factors_short.weight", "rope_factors_long.weight"


@dataclass(frozen=True, slots=True)
class Rope:
    """How heads rotate.

    Attributes:
        inv_freq: The weight with the frequencies, float32 [dims / 2].
        dims: Rotated dimensions of a head.
        style: ``neox`` or ``norm``.
        scale: Factor on cos and sin.
        inv_freq_long: The frequencies for sequences longer than `original_context`, if they differ.
        original_context: Tokens up to which `inv_freq` is in force; 0 if it always is.
    """

    inv_freq: ir.Value
    dims: int
    style: str
    scale: float
    inv_freq_long: ir.Value | None = None
    original_context: int = 0


@dataclass(frozen=True, slots=True)
class Yarn:
    """Yarn scaling as a model file states it; `truncate` rounds the ends of the ramp."""

    factor: float
    original: int
    beta_fast: float
    beta_slow: float
    truncate: bool

    @property
    def attention(self) -> float:
        """The factor on cos and sin."""
        return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0

    def apply(self, freqs: NDArray[np.float64], theta: float) -> NDArray[np.float64]:
        """Returns the frequencies: scaled where waves are long, unscaled where they are short."""
        half = len(freqs)

        def pair(rotations: float) -> float:
            return half * math.log(self.original / (2 * math.pi * rotations)) / math.log(theta)

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        high += 0.001 if low == high else 0
        ramp = np.clip((np.arange(half) - low) / (high - low), 0, 1)
        scaled: NDArray[np.float64] = freqs / self.factor * ramp + freqs * (1 - ramp)
        return scaled


def rope(
    b: Builder,
    k_dim: int,
    style: str,
    *,
    theta: float = 10000.0,
    truncate: bool = True,
    mscale: float | None = None,
) -> Rope:
    """Reads the file's rope keys and tensors (base, scaling, divisors) and makes the table.

    Args:
        b: The model.
        k_dim: Width of a key head.
        style: ``neox`` or ``norm``.
        theta: The base if the file states none.
        truncate: Whether yarn rounds the ends of its ramp.
        mscale: The factor on cos and sin under longrope, for a family that has its own; such a
            family has no factor otherwise.
    """
    meta = b.hyper
    theta, dims = base(meta, "rope.freq_base", theta), rotary_dims(meta, k_dim)
    freqs, scale = frequencies(theta, dims), 1.0
    if is_longrope(b):
        return _longrope(b, freqs, style, mscale)
    kind, factor = _scaling(meta)
    if b.weights.has("rope_freqs.weight"):
        _refuse_second_scaling(meta, kind, "rope_freqs.weight")
        freqs = freqs / _divisors(b, "rope_freqs.weight", dims // 2)
    elif kind == "yarn":
        yarn = _read_yarn(meta, factor, truncate)
        freqs, scale = yarn.apply(freqs, theta), _yarn_scale(meta, yarn)
    elif kind == "linear":
        freqs = freqs / factor
    if mscale is None:
        scale *= meta.f32("rope.scaling.attn_factor", 1.0)
    return Rope(b.weights.computed("rope.inv_freq", freqs), dims, style, scale)


def is_longrope(b: Builder) -> bool:
    """Tells whether the file has divisors for short and for long sequences."""
    stated = b.hyper.str("rope.scaling.type", "linear") == "longrope"
    return stated or b.weights.has(SHORT_DIVISORS) or b.weights.has(LONG_DIVISORS)


def _longrope(b: Builder, freqs: NDArray[np.float64], style: str, mscale: float | None) -> Rope:
    """Returns the rope with two tables."""
    meta, key = b.hyper, "rope.scaling.original_context_length"
    if "rope.scaling.type" in meta and meta.str("rope.scaling.type") != "longrope":
        _refuse_second_scaling(meta, _scaling(meta)[0], SHORT_DIVISORS)
    context = count(meta, "context_length", MAX_CONTEXT)
    original = count(meta, key, MAX_CONTEXT, default=context)
    if original < 2:
        meta.fail(key, f"expected at least 2 tokens but got {original}")
    short = freqs / _divisors(b, SHORT_DIVISORS, len(freqs))
    long = freqs / _divisors(b, LONG_DIVISORS, len(freqs))
    return Rope(
        b.weights.computed("rope.inv_freq", short),
        2 * len(freqs),
        style,
        _longrope_scale(meta, context, original, mscale),
        b.weights.computed("rope.inv_freq_long", long),
        original,
    )


def _longrope_scale(meta: Metadata, context: int, original: int, mscale: float | None) -> float:
    """Returns the factor on cos and sin.

    It is the file's, or sqrt(1 + ln(context / original) / ln(original)) as in transformers. A
    family with one of its own ignores both: converters write that number into its files too. The
    key `rope.scaling.mscale`, which none of them writes, overrides it.
    """
    key = "rope.scaling.attn_factor" if mscale is None else "rope.scaling.mscale"
    factor = max(1.0, meta.f32("rope.scaling.factor", 0.0) or context / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original))
    scale = meta.f32(key, usual if mscale is None else mscale)
    if not 0 < scale < 1e6:
        meta.fail(key, f"expected a positive factor but got {scale}")
    return scale


def frequencies(theta: float, dims: int) -> NDArray[np.float64]:
    """Returns theta^(-2i / dims) for i = 0 .. dims / 2 - 1."""
    return theta ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)


def base(meta: Metadata, key: str, default: float = 10000.0) -> float:
    """Returns the base of the frequencies."""
    theta = meta.f32(key, default)
    if theta <= 1:
        meta.fail(key, f"expected more than 1 but got {theta}")
    return theta


def rotary_dims(meta: Metadata, k_dim: int) -> int:
    """Returns how many dimensions of a head rotate."""
    dims = count(meta, "rope.dimension_count", k_dim, default=k_dim)
    if dims % 2:
        meta.fail("rope.dimension_count", f"expected an even number but got {dims}")
    return dims


def _scaling(meta: Metadata) -> tuple[str, float]:
    """Returns the kind of scaling (none, linear, yarn) and its factor."""
    kind = meta.str("rope.scaling.type", "linear")
    key = "rope.scaling.factor" if "rope.scaling.factor" in meta else "rope.scale_linear"
    factor = meta.f32(key, 0.0) or 1.0
    if kind not in ("none", "linear", "yarn"):
        meta.fail(
            "rope.scaling.type",
            f"expected none, linear, yarn or longrope but got {kind!r}",
            hint="this kind of position scaling is not supported for this architecture",
        )
    if not 0 < factor < 1e6:
        meta.fail(key, f"expected a positive factor but got {factor}")
    if kind == "yarn" and key not in meta:
        meta.fail("rope.scaling.factor", "is missing, and yarn has no usual one")
    return ("none", 1.0) if factor == 1 else (kind, factor)


def _refuse_second_scaling(meta: Metadata, kind: str, tensor: str) -> None:
    """Raises a `ModelError` if the file scales by a key what the divisors of a tensor scale."""
    if kind != "none":
        meta.fail("rope.scaling.type", f"is {kind!r}, but tensor {tensor!r} scales positions too")


def _yarn_scale(meta: Metadata, yarn: Yarn) -> float:
    """Returns the factor on cos and sin: `attention_factor` in transformers, if that is set."""
    key = "rope.scaling.yarn_attn_factor"
    scale = meta.f32(key, yarn.attention)
    if not 0 < scale < 1e6:
        meta.fail(key, f"expected a positive factor but got {scale}")
    return scale


def _read_yarn(meta: Metadata, factor: float, truncate: bool) -> Yarn:
    most = 1 << 28
    context = count(meta, "context_length", most)
    original = count(meta, "rope.scaling.original_context_length", most, default=context)
    fast = meta.f32("rope.scaling.yarn_beta_fast", 32.0)
    slow = meta.f32("rope.scaling.yarn_beta_slow", 1.0)
    if not 0 < slow <= fast:
        meta.fail("rope.scaling.yarn_beta_fast", f"expected at least {slow} but got {fast}")
    return Yarn(factor, original, fast, slow, truncate)


def _divisors(b: Builder, tensor: str, length: int) -> NDArray[np.float32]:
    divisors = b.weights.floats(tensor, length)
    if not np.all(np.isfinite(divisors)) or np.any(divisors <= 0):
        b.weights.fail(tensor, "expected positive numbers")
    return divisors
