"""The feed-forward half of a layer: a gated MLP, or a mixture of experts."""

from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.arch._blocks import Bias, linear, width_of
from moesaic.partitioner.arch._builder import Builder


@dataclass(frozen=True, slots=True)
class Activation:
    """The activation between the matrices of a gated MLP."""

    kind: str = "silu"
    alpha: float = 0.0
    limit: float = 0.0


SILU = Activation()


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
    return linear(b, "mlp/down_proj", inner, "ffn_down", width_of(x), bias=bias)


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
    stack = _expert_stack(b, spec, width_of(x))
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
