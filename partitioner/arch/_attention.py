"""The attention half of a layer."""

from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.arch._blocks import Bias, linear, norm, width_of
from moesaic.partitioner.arch._builder import Builder
from moesaic.partitioner.arch._hyper import Hyper
from moesaic.partitioner.arch._rope import Rope


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer's attention: its heads, its rotation, and which tensors it has.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads.
        k_dim: Width of a query or key head.
        v_dim: Width of a value head.
        scale: Factor on the scores.
        rope: The rotation of queries and keys.
        window: Tokens that a token sees, itself included; 0 for all.
        bias: Whether the projections have biases.
        norm_eps: Epsilon of the norms of queries and keys, None without these norms.
        norm_whole: Whether they are norms over all heads together, not of each head.
        sinks: Whether heads have a sink.
    """

    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    scale: float
    rope: Rope
    window: int = 0
    bias: Bias = "none"
    norm_eps: float | None = None
    norm_whole: bool = False
    sinks: bool = False

    @staticmethod
    def of(
        hyper: Hyper,
        layer: int,
        rope: Rope,
        *,
        window: int = 0,
        bias: Bias = "none",
        norm_eps: float | None = None,
        norm_whole: bool = False,
        sinks: bool = False,
    ) -> "Attention":
        """Returns a layer's attention with heads and scale as the file states them."""
        return Attention(
            heads=hyper.heads[layer],
            kv_heads=hyper.kv_heads[layer],
            k_dim=hyper.k_dim,
            v_dim=hyper.v_dim,
            scale=hyper.attention_scale,
            rope=rope,
            window=window,
            bias=bias,
            norm_eps=norm_eps,
            norm_whole=norm_whole,
            sinks=sinks,
        )


def attention(b: Builder, layer: int, x: ir.Value, spec: Attention) -> ir.Value:
    """Adds projections, norms, rotation, attention over the cache, and the output projection."""
    q, k, v = _qkv(b, x, spec)
    if spec.norm_eps is not None:
        groups = (1, 1) if spec.norm_whole else (spec.heads, spec.kv_heads)
        q = norm(b, "attn/q_norm", q, "attn_q_norm", spec.norm_eps, groups[0])
        k = norm(b, "attn/k_norm", k, "attn_k_norm", spec.norm_eps, groups[1])
    q = _rotate(b, "attn/q_rope", q, spec, spec.heads)
    k = _rotate(b, "attn/k_rope", k, spec, spec.kv_heads)
    past = b.past(layer, spec.kv_heads, spec.k_dim, spec.v_dim)
    sinks = b.weights.vector("attn_sinks.weight", spec.heads) if spec.sinks else None
    y, key, value = b.node(
        "Attention",
        "attn/attention",
        [q, k, v, b.attention_mask, *past],
        [sinks],
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        k_dim=spec.k_dim,
        v_dim=spec.v_dim,
        scale=float(spec.scale),
        window=spec.window,
        softcap=0.0,
    )
    b.present(layer, key, value)
    return linear(b, "attn/o_proj", y, "attn_output", width_of(x), bias=spec.bias)


def _qkv(b: Builder, x: ir.Value, spec: Attention) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Projects to queries, keys and values, from three tensors or from the rows of `attn_qkv`."""
    rows = spec.heads * spec.k_dim, spec.kv_heads * spec.k_dim, spec.kv_heads * spec.v_dim
    fused = b.weights.has("attn_qkv.weight")
    if not fused:
        _refuse_uneven_biases(b)
    firsts = 0, rows[0], rows[0] + rows[1]
    values = [
        linear(
            b,
            f"attn/{name}_proj",
            x,
            f"attn_{name}",
            size,
            bias=spec.bias,
            fused=("attn_qkv", sum(rows), first) if fused else None,
        )
        for name, size, first in zip("qkv", rows, firsts, strict=True)
    ]
    return values[0], values[1], values[2]


def _refuse_uneven_biases(b: Builder) -> None:
    """Raises a `ModelError` if some of queries, keys and values have a bias and others do not."""
    names = [f"attn_{name}.bias" for name in "qkv"]
    missing = [name for name in names if not b.weights.has(name)]
    if 0 < len(missing) < len(names):
        b.weights.take(missing[0])  # names it


def _rotate(b: Builder, name: str, x: ir.Value, spec: Attention, heads: int) -> ir.Value:
    (y,) = b.node(
        "Rope",
        name,
        [x, b.positions],
        [spec.rope.inv_freq, spec.rope.inv_freq_long],
        heads=heads,
        head_dim=spec.k_dim,
        rotary_dims=spec.rope.dims,
        offset=0,
        style=spec.rope.style,
        scale=float(spec.rope.scale),
        original_context=spec.rope.original_context,
    )
    return y
