"""The feed-forward half of a layer: a gated MLP, or a mixture of experts."""

from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.arch._blocks import Bias, add, linear, row, width_of
from moesaic.partitioner.arch._builder import Builder
from moesaic.partitioner.arch._hyper import Hyper


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


@dataclass(frozen=True, slots=True)
class Shared:
    """The expert that every token uses.

    Attributes:
        width: Its inner width.
        gated: Whether the sigmoid of one more projection of the token multiplies its result.
    """

    width: int
    gated: bool = False


def softmax_routing(b: Builder, hyper: Hyper, width: int, *, renormalise: bool) -> Mixture:
    """Returns the mixture of a family that routes by a softmax over all experts.

    The file may state another gating, whether weights are divided by their sum, and a scale.

    Args:
        b: The model.
        hyper: Numbers of experts.
        width: Inner width of an expert.
        renormalise: Whether weights are divided by their sum if the file does not say.
    """
    key, gatings = "expert_gating_func", {0: "softmax", 1: "softmax", 3: "softmax_selected"}
    gating = b.hyper.u32(key, 0)
    if gating not in gatings:
        b.hyper.fail(
            key,
            f"expected 0 (default), 1 (softmax) or 3 (softmax of the chosen) but got {gating}",
            hint="the model is a variant that this version does not support",
        )
    return Mixture(
        experts=hyper.experts,
        used=hyper.experts_used,
        width=width,
        gating=gatings[gating],
        renormalise=b.hyper.bool("expert_weights_norm", renormalise),
        scale=b.hyper.f32("expert_weights_scale", 0.0) or 1.0,
    )


def mlp(
    b: Builder, x: ir.Value, width: int, *, bias: Bias = "none", activation: Activation = SILU
) -> ir.Value:
    """Adds a gated MLP: down(act(gate x, up x))."""
    gate = linear(b, "mlp/gate_proj", x, "ffn_gate", width, bias=bias)
    up = linear(b, "mlp/up_proj", x, "ffn_up", width, bias=bias)
    inner = _activate(b, "mlp/activation", gate, up, activation)
    return linear(b, "mlp/down_proj", inner, "ffn_down", width_of(x), bias=bias)


def mixture(
    b: Builder, layer: int, x: ir.Value, spec: Mixture, shared: Shared | None = None
) -> ir.Value:
    """Adds router, route and experts, and the shared expert if there is one.

    All projections of x stand together, so that they can share the preparation of x, and the
    shared expert stands before the others, which may be on another device.
    """
    logits = linear(b, "moe/router", x, "ffn_gate_inp", spec.experts, bias=spec.bias)
    projected = None if shared is None else _project_shared(b, x, shared)
    ids, weights = _route(b, logits, spec)
    common = None if projected is None else _finish_shared(b, *projected, width_of(x))
    y = _experts(b, layer, x, ids, weights, spec)
    return y if common is None else add(b, "shared/add", y, common)


def _activate(
    b: Builder, name: str, gate: ir.Value, up: ir.Value, activation: Activation
) -> ir.Value:
    (inner,) = b.node(
        "GatedActivation",
        name,
        [gate, up],
        activation=activation.kind,
        alpha=activation.alpha,
        limit=activation.limit,
    )
    return inner


def _project_shared(
    b: Builder, x: ir.Value, spec: Shared
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Adds what the shared expert makes of x: gate, up, and the logit of its own gate."""
    gate = linear(b, "shared/gate_proj", x, "ffn_gate_shexp", spec.width)
    up = linear(b, "shared/up_proj", x, "ffn_up_shexp", spec.width)
    return gate, up, row(b, "shared/router", x, "ffn_gate_inp_shexp") if spec.gated else None


def _finish_shared(
    b: Builder, gate: ir.Value, up: ir.Value, opening: ir.Value | None, width: int
) -> ir.Value:
    inner = _activate(b, "shared/activation", gate, up, SILU)
    y = linear(b, "shared/down_proj", inner, "ffn_down_shexp", width)
    if opening is None:
        return y
    (gated,) = b.node("SigmoidGate", "shared/gate", [y, opening])
    return gated


def _route(b: Builder, logits: ir.Value, spec: Mixture) -> tuple[ir.Value, ir.Value]:
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
    return ids, weights


def _experts(
    b: Builder, layer: int, x: ir.Value, ids: ir.Value, weights: ir.Value, spec: Mixture
) -> ir.Value:
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
    for role in ("gate", "up", "down", "gate_up"):
        weights.refuse(f"ffn_{role}_exps.scale", "scales of experts are not supported")
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
