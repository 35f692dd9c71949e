"""The blocks that decoder families share. Each adds nodes to a `Builder` and returns a value.

Values are float32 [batch, sequence, width]. Tensor names are those of GGUF, without the layer.
"""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._hyper import Hyper
from moesaic.partitioner.arch._rope import Rope
from moesaic.partitioner.gguf import GgufFile
from moesaic.plan_format import ModelFacts

Bias = Literal["none", "optional", "required"]


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
        norm_eps: Epsilon of the norm of each query and key head, None without these norms.
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
    sinks: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """The activation between the matrices of a gated MLP."""

    kind: str = "silu"
    alpha: float = 0.0
    limit: float = 0.0


SILU = Activation()


@dataclass(frozen=True, slots=True)
class Mixture:
    """The experts of a layer and how tokens are routed to them.

    Attributes:
        experts: Experts of the layer.
        used: Experts that a token uses.
        width: Inner width of an expert.
        gating: ``softmax``, ``softmax_selected`` or ``sparsemixer``.
        renormalise: Whether the weights of the chosen are divided by their sum.
        bias: Whether router and experts have biases.
        scale: Factor on the weights.
        eps: Half the relative distance within which sparsemixer sees a close race.
        activation: The activation of the experts.
    """

    experts: int
    used: int
    width: int
    gating: str
    renormalise: bool
    bias: Bias = "none"
    scale: float = 1.0
    eps: float = 0.0
    activation: Activation = SILU


def linear(
    b: Builder,
    name: str,
    x: ir.Value,
    tensor: str,
    rows: int,
    *,
    bias: Bias = "none",
    fused: tuple[str, int, int] | None = None,
) -> ir.Value:
    """Adds x · weightᵀ + bias.

    Args:
        b: The model.
        name: Name of the node.
        x: Activations.
        tensor: The weight is `<tensor>.weight`, the bias `<tensor>.bias`.
        rows: Width of the result.
        bias: Whether there is a bias.
        fused: (tensor, all its rows, first row) if the weight is a range of rows of a larger one.
    """
    place = (f"{fused[0]}.weight", *fused[1:]) if fused else None
    weight = b.weights.matrix(f"{tensor}.weight", rows, _width(x), within=place)
    biased = bias == "required" or b.weights.has(f"{fused[0] if fused else tensor}.bias")
    if bias == "none" or not biased:
        return _linear(b, name, x, weight, None)
    place = (f"{fused[0]}.bias", *fused[1:]) if fused else None
    return _linear(b, name, x, weight, b.weights.vector(f"{tensor}.bias", rows, within=place))


def norm(b: Builder, name: str, x: ir.Value, tensor: str, eps: float, groups: int = 1) -> ir.Value:
    """Adds the RMS norm of each of `groups` runs of the last axis, with the weight of `tensor`."""
    weight = b.weights.vector(f"{tensor}.weight", _width(x) // groups)
    (y,) = b.node("RMSNorm", name, [x], [weight], eps=eps, groups=groups)
    return y


def add(b: Builder, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """Adds a residual."""
    (out,) = b.node("Add", name, [x, y])
    return out


def embedding(b: Builder, vocab: int, hidden: int) -> ir.Value:
    """Adds the rows of `token_embd.weight`."""
    table = b.weights.matrix("token_embd.weight", vocab, hidden)
    part = b.parts(table)[0]
    (x,) = b.node(
        "Embedding", "embed", [b.input_ids], [table], codec=part.codec, rows=vocab, cols=hidden
    )
    return x


def scale(b: Builder, name: str, x: ir.Value, factor: float) -> ir.Value:
    """Adds factor · x."""
    (y,) = b.node("Scale", name, [x], factor=float(factor))
    return y


def attention(b: Builder, layer: int, x: ir.Value, spec: Attention) -> ir.Value:
    """Adds projections, norms, rotation, attention over the cache, and the output projection."""
    q, k, v = _qkv(b, x, spec)
    if spec.norm_eps is not None:
        q = norm(b, "attn/q_norm", q, "attn_q_norm", spec.norm_eps, spec.heads)
        k = norm(b, "attn/k_norm", k, "attn_k_norm", spec.norm_eps, spec.kv_heads)
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
    return linear(b, "attn/o_proj", y, "attn_output", _width(x), bias=spec.bias)


def mlp(
    b: Builder, x: ir.Value, width: int, *, bias: Bias = "none", activation: Activation = SILU
) -> ir.Value:
    """Adds a gated MLP: down(act(gate x, up x))."""
    gate = linear(b, "mlp/gate_proj", x, "ffn_gate", width, bias=bias)
    up = linear(b, "mlp/up_proj", x, "ffn_up", width, bias=bias)
    (inner,) = b.node(
        "GatedActivation",
        "mlp/activation",
        [gate, up],
        activation=activation.kind,
        alpha=activation.alpha,
        limit=activation.limit,
    )
    return linear(b, "mlp/down_proj", inner, "ffn_down", _width(x), bias=bias)


def mixture(b: Builder, layer: int, x: ir.Value, spec: Mixture) -> ir.Value:
    """Adds router, route and experts."""
    logits = linear(b, "moe/router", x, "ffn_gate_inp", spec.experts, bias=spec.bias)
    ids, weights = b.node(
        "Route",
        "moe/route",
        [logits],
        [None],
        experts=spec.experts,
        used=spec.used,
        gating=spec.gating,
        eps=spec.eps,
        renormalise=spec.renormalise,
        scale=float(spec.scale),
    )
    stack = _expert_stack(b, spec, _width(x))
    parts = b.parts(stack)
    with b.place(f"experts.{layer}"):
        (y,) = b.node(
            "Experts",
            "moe/experts",
            [x, ids, weights],
            [stack],
            experts=spec.experts,
            used=spec.used,
            activation=spec.activation.kind,
            alpha=spec.activation.alpha,
            limit=spec.activation.limit,
            roles=[p.role for p in parts],
            offsets=[p.offset for p in parts],
            codecs=[p.codec for p in parts],
            rows=[p.rows for p in parts],
            cols=[p.cols for p in parts],
        )
    return y


def head(b: Builder, x: ir.Value, hyper: Hyper, *, tied: bool, softcap: float = 0.0) -> ir.Value:
    """Adds the final norm and the projection to logits.

    With `tied`, the embedding serves as the projection if the file has no `output.weight`.
    """
    with b.place("head"):
        x = norm(b, "norm", x, "output_norm", hyper.eps)
        if tied and not b.weights.has("output.weight"):
            weight = b.weights.matrix("token_embd.weight", hyper.vocab, hyper.hidden)
            logits = _linear(b, "lm_head", x, weight, None)
        else:
            logits = linear(b, "lm_head", x, "output", hyper.vocab)
        if softcap:
            (logits,) = b.node("Softcap", "softcap", [logits], cap=float(softcap))
    return logits


def finish(b: Builder, logits: ir.Value, hyper: Hyper) -> Model:
    """Returns the model with its facts."""
    gguf = b.gguf
    facts = ModelFacts(
        name=gguf.metadata.str("general.name", gguf.path.stem),
        architecture=gguf.architecture,
        layers=hyper.layers,
        hidden_size=hyper.hidden,
        vocab_size=hyper.vocab,
        context_length=hyper.context,
        experts=hyper.experts,
        experts_used=hyper.experts_used,
        parameters=_elements(gguf),
    )
    return b.finish(logits, facts)


def _linear(
    b: Builder, name: str, x: ir.Value, weight: ir.Value, bias: ir.Value | None
) -> ir.Value:
    part = b.parts(weight)[0]
    (y,) = b.node(
        "Linear", name, [x], [weight, bias], codec=part.codec, rows=part.rows, cols=part.cols
    )
    return y


def _qkv(b: Builder, x: ir.Value, spec: Attention) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Projects to queries, keys and values, from three tensors or from the rows of `attn_qkv`."""
    rows = spec.heads * spec.k_dim, spec.kv_heads * spec.k_dim, spec.kv_heads * spec.v_dim
    fused = b.weights.has("attn_qkv.weight")
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


def _expert_stack(b: Builder, spec: Mixture, hidden: int) -> ir.Value:
    """Returns the weight with one record an expert: matrices, then biases if there are any."""
    weights, count, width = b.weights, spec.experts, spec.width
    if weights.has("ffn_gate_up_exps.weight"):
        fused = count, 2 * width, hidden
        tensor = "ffn_gate_up_exps.weight"
        gate = weights.expert_rows("gate", tensor, fused, 0, width)
        up = weights.expert_rows("up", tensor, fused, width, width)
    else:
        gate = weights.expert_matrices("gate", "ffn_gate", count, width, hidden)
        up = weights.expert_matrices("up", "ffn_up", count, width, hidden)
    down = weights.expert_matrices("down", "ffn_down", count, hidden, width)
    parts = [gate, up, down]
    if spec.bias == "required":
        parts += [
            weights.expert_biases(f"{role}_bias", f"ffn_{role}_exps.bias", count, length)
            for role, length in (("gate", width), ("up", width), ("down", hidden))
        ]
    return weights.add("ffn_exps", parts)


def _elements(gguf: GgufFile) -> int:
    sizes = 0
    for info in gguf.tensors.values():
        size = 1
        for dim in info.shape:
            size *= dim
        sizes += size
    return sizes


def _width(x: ir.Value) -> int:
    assert x.shape is not None
    return int(x.shape[-1])  # type: ignore[arg-type]
