"""The layers of the oracle in `forward`: weights, positions, attention and feed-forward halves.

Shapes: n tokens, D model width, H query heads, G key/value heads, d head width, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
HEAD_ROWS = 16384  # vocabulary rows decoded at a time


class Model:
    """Metadata and decoded tensors of one GGUF file."""

    def __init__(self, path: str | Path) -> None:
        reader = gguf.GGUFReader(path)
        self.fields = reader.fields
        self.tensors = {t.name: t for t in reader.tensors}
        self.arch = str(self.meta("general.architecture"))

    def meta(self, key: str, default: Any = None) -> Any:
        """The value of a full metadata key."""
        field = self.fields.get(key)
        return default if field is None else field.contents()

    def hp(self, key: str, default: Any = None) -> Any:
        """The value of a key under the architecture's prefix."""
        return self.meta(f"{self.arch}.{key}", default)

    def rows(self, name: str, rows: Any = slice(None)) -> Array:
        """Tensor ``name`` decoded to float64, or the part of its first axis that ``rows`` picks."""
        t = self.tensors[name]
        values: Array = gguf.quants.dequantize(t.data[rows], t.tensor_type).astype(np.float64)
        return values

    def maybe(self, name: str) -> Array | None:
        return self.rows(name) if name in self.tensors else None

    def linear(self, name: str, x: Array) -> Array:
        """``x @ W.T + b`` with ``name.weight`` [out, in] and ``name.bias``, if there is one."""
        y = x @ self.rows(f"{name}.weight").T
        bias = self.maybe(f"{name}.bias")
        return y if bias is None else y + bias

    def rms(self, name: str, x: Array) -> Array:
        """RMS norm over the last axis with ``name.weight``."""
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        eps = float(self.hp("attention.layer_norm_rms_epsilon"))
        y: Array = x / np.sqrt(mean_square + eps) * self.rows(f"{name}.weight")
        return y

    def layer_norm(self, name: str, x: Array) -> Array:
        """Layer norm over the last axis with ``name.weight`` and ``name.bias``."""
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(x * x, axis=-1, keepdims=True)
        eps = float(self.hp("attention.layer_norm_rms_epsilon"))
        y: Array = x / np.sqrt(variance + eps)
        return y * self.rows(f"{name}.weight") + self.rows(f"{name}.bias")

    @property
    def heads(self) -> tuple[int, int, int]:
        """(H, G, d)."""
        h = int(self.hp("attention.head_count"))
        d = int(self.hp("attention.key_length", self.hp("embedding_length") // h))
        return h, int(self.hp("attention.head_count_kv", h)), d


# Elementary functions ---------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


# Rotary positions -------------------------------------------------------------------------------


def rope_table(
    m: Model, theta: float, *, scaled: bool = True, truncate: bool = True
) -> tuple[Array, float]:
    """Frequencies [R/2] and the factor on cos and sin.

    Args:
        m: The model, for the scaling keys.
        theta: The base.
        scaled: Whether the file's scaling applies (it does not to gemma3's windowed layers).
        truncate: Whether yarn rounds the ends of its ramp to whole dimensions.
    """
    dims = int(m.hp("rope.dimension_count", m.heads[2]))
    i = np.arange(dims // 2)
    freqs = float(theta) ** (-2.0 * i / dims)
    if not scaled:
        return freqs, 1.0
    divisors = m.maybe("rope_freqs.weight")
    if divisors is not None:
        return freqs / divisors, 1.0
    kind = m.hp("rope.scaling.type", "linear")
    factor = float(m.hp("rope.scaling.factor", 0.0) or 1.0)
    if kind == "none" or factor == 1.0:
        return freqs, 1.0
    if kind == "linear":
        return freqs / factor, 1.0
    if kind != "yarn":
        raise NotImplementedError(f"rope scaling {kind!r}")
    original = m.hp("rope.scaling.original_context_length", m.hp("context_length"))

    def dimension(turns: float) -> float:
        return dims * math.log(original / (2.0 * math.pi * turns)) / (2.0 * math.log(theta))

    low = dimension(m.hp("rope.scaling.yarn_beta_fast", 32.0))
    high = dimension(m.hp("rope.scaling.yarn_beta_slow", 1.0))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((i - low) / (high - low if high > low else 0.001), 0.0, 1.0)
    return freqs / factor * ramp + freqs * (1.0 - ramp), 0.1 * math.log(factor) + 1.0


def longrope_table(m: Model, length: int, factor: float) -> tuple[Array, float]:
    """Frequencies [R/2] for a sequence of ``length`` tokens, and the factor on cos and sin.

    Beyond the original context all positions use the long divisors. Without divisors, the plain
    table and no factor.
    """
    freqs, _ = rope_table(m, m.hp("rope.freq_base", 10000.0), scaled=False)
    original = m.hp("rope.scaling.original_context_length", m.hp("context_length"))
    divisors = m.maybe(f"rope_factors_{'long' if length > original else 'short'}.weight")
    return (freqs, 1.0) if divisors is None else (freqs / divisors, factor)


def rope(x: Array, table: tuple[Array, float], *, interleaved: bool) -> Array:
    """Rotates the leading dimensions of each head; x is [n, heads, d], row t at position t."""
    freqs, factor = table
    angle = np.arange(len(x))[:, None, None] * freqs
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    half = len(freqs)
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


# Attention --------------------------------------------------------------------------------------


def project(m: Model, prefix: str, x: Array) -> tuple[Array, Array, Array]:
    """Queries [n, H, d], keys [n, G, d] and values [n, G, dv] of normalised input x [n, D]."""
    h, g, d = m.heads
    if f"{prefix}.attn_qkv.weight" in m.tensors:
        fused = m.linear(f"{prefix}.attn_qkv", x)
        q, k, v = np.split(fused, [h * d, (h + g) * d], axis=1)
    else:
        q, k, v = (m.linear(f"{prefix}.attn_{name}", x) for name in "qkv")
    n = len(x)
    return q.reshape(n, h, -1), k.reshape(n, g, -1), v.reshape(n, g, -1)


def attention(
    q: Array, k: Array, v: Array, scale: float, window: int = 0, sinks: Array | None = None
) -> Array:
    """Causal attention, [n, H * dv]; position i sees the last ``window`` positions (0: all).

    ``sinks`` [H] are logits that take part in the softmax and carry no value.
    """
    n, h, _ = q.shape
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    hidden = (distance < 0) | ((distance >= window) if window else False)
    group = h // k.shape[1]
    out = np.empty((n, h, v.shape[2]))
    for head in range(h):
        z = scale * (q[:, head] @ k[:, head // group].T)
        z[hidden] = -np.inf
        if sinks is not None:
            z = np.concatenate([z, np.full((n, 1), sinks[head])], axis=1)
        out[:, head] = softmax(z)[:, :n] @ v[:, head // group]
    return out.reshape(n, -1)


def is_windowed(m: Model, layer: int, default_period: int) -> bool:
    """Whether a layer is windowed: an array says so, or all but the last of each period."""
    pattern = m.hp("attention.sliding_window_pattern", default_period)
    if isinstance(pattern, list):
        return bool(pattern[layer])
    return bool(pattern == 0 or layer % pattern < pattern - 1)


# Feed-forward -----------------------------------------------------------------------------------

Activation = Callable[[Array, Array], Array]  # (gate, up) -> hidden


def mlp(m: Model, prefix: str, x: Array, act: Activation, suffix: str = "") -> Array:
    gate = m.linear(f"{prefix}.ffn_gate{suffix}", x)
    up = m.linear(f"{prefix}.ffn_up{suffix}", x)
    return m.linear(f"{prefix}.ffn_down{suffix}", act(gate, up))


def expert(m: Model, prefix: str, e: int, x: Array, act: Activation) -> Array:
    """Expert e of a layer, from stacked tensors or from the old one-tensor-per-expert form."""
    if f"{prefix}.ffn_gate.{e}.weight" in m.tensors:
        return mlp(m, prefix, x, act, f".{e}")

    def part(name: str, y: Array) -> Array:
        z = y @ m.rows(f"{prefix}.ffn_{name}_exps.weight", e).T
        bias = f"{prefix}.ffn_{name}_exps.bias"
        return z + m.rows(bias, e) if bias in m.tensors else z

    if f"{prefix}.ffn_gate_up_exps.weight" in m.tensors:
        gate, up = np.split(part("gate_up", x), 2, axis=1)
        return part("down", act(gate, up))
    return part("down", act(part("gate", x), part("up", x)))


def softmax_route(scores: Array, used: int) -> tuple[Any, Array]:
    """Chosen experts and weights [n, used]: the softmax over the selected router logits.

    That equals a softmax over all experts divided by the selected sum. Lower index wins ties.
    """
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :used]
    return chosen, softmax(np.take_along_axis(scores, chosen, axis=1))


def whole_softmax_route(scores: Array, used: int) -> tuple[Any, Array]:
    """Chosen experts and their probabilities among all experts, which sum to less than 1."""
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :used]
    return chosen, np.take_along_axis(softmax(scores), chosen, axis=1)


def sparsemixer_route(scores: Array, used: int) -> tuple[Any, Array]:
    """Two picks; each weight is the softmax over the logits within 2 % of the one picked.

    The second pick is made as if the first were not there. Weights are not normalised.
    """
    assert used == 2
    row, left = np.arange(len(scores)), scores.copy()
    chosen, weights = np.empty((len(scores), 2), np.int64), np.empty((len(scores), 2))
    for slot in range(2):
        best = left.argmax(axis=1)
        top = left[row, best][:, None]
        with np.errstate(invalid="ignore"):
            far = (top - scores) / np.maximum(np.abs(scores), top) > 2 * 0.01
        chosen[:, slot] = best
        weights[:, slot] = softmax(np.where(far, -np.inf, left))[row, best]
        left[row, best] = -np.inf
    return chosen, weights


Route = Callable[[Array, int], tuple[Any, Array]]


def experts(
    m: Model, prefix: str, x: Array, act: Activation, route: Route = softmax_route
) -> Array:
    """Mixture of experts: the sum of the chosen MLPs, weighted by their route."""
    scores = m.linear(f"{prefix}.ffn_gate_inp", x)
    chosen, weights = route(scores, int(m.hp("expert_used_count")))
    out = np.zeros_like(x)
    for e in np.unique(chosen):
        token, slot = np.nonzero(chosen == e)
        out[token] += weights[token, slot, None] * expert(m, prefix, int(e), x[token], act)
    return out


def shared_expert(m: Model, prefix: str, x: Array, act: Activation) -> Array:
    """The expert of every token, times the sigmoid of its own gate if the file has one."""
    y = mlp(m, prefix, x, act, "_shexp")
    gate = m.maybe(f"{prefix}.ffn_gate_inp_shexp.weight")
    return y if gate is None else y * sigmoid(x @ gate.reshape(-1, 1))


def silu_gate(gate: Array, up: Array) -> Array:
    return silu(gate) * up


def clamped_swiglu(gate: Array, up: Array) -> Array:
    gate = np.minimum(gate, 7.0)
    return gate * sigmoid(1.702 * gate) * (np.clip(up, -7.0, 7.0) + 1.0)


def gelu_gate(gate: Array, up: Array) -> Array:
    return gelu_tanh(gate) * up
