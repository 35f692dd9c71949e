"""The operators. A further one is an entry here, with a function body if ONNX is to run it."""

from collections.abc import Callable

import onnx_ir as ir

from moesaic.partitioner.ops.bodies import embedding_function, experts_function, linear_function
from moesaic.partitioner.ops.operator import Load, Node, Operator, OutputType, Program, Work
from moesaic.plan_format import Part

F32, I32, I64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
EXPERT_ROLES = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias")


def _like(name: str) -> Callable[[Node], list[OutputType]]:
    """Returns an inference: one float32 output with the shape of the input `name`."""
    return lambda node: [(F32, node.like(name))]


def _elementwise(*inputs: str, flops: int = 4) -> Callable[[Node, Load], Work]:
    """Returns the work of reading the inputs and writing one output as wide as the first."""

    def work(node: Node, load: Load) -> Work:
        widths = [node.width(name) for name in inputs]
        moved = 4 * load.rows * (sum(widths) + widths[0])
        return Work(moved + node.weight_bytes(), flops * load.rows * widths[0])

    return work


def _embedding_type(node: Node) -> list[OutputType]:
    ids = node.input("input_ids").shape
    assert ids is not None
    return [(F32, ir.Shape([*ids, node["cols"]]))]


def _embedding_work(node: Node, load: Load) -> Work:
    row_bytes = node.weight_bytes("table") / node["rows"]
    return Work(load.rows * (row_bytes + 4 * node["cols"]), load.rows * node["cols"])


def _linear_work(node: Node, load: Load) -> Work:
    rows, cols = node["rows"], node["cols"]
    moved = node.weight_bytes() + 4 * load.rows * (rows + cols)
    return Work(moved, 2 * load.rows * rows * cols)


def _attention_type(node: Node) -> list[OutputType]:
    key, value = node.input("past_key"), node.input("past_value")
    assert key.dtype is not None
    cache = [(key.dtype, _present(past)) for past in (key, value)]
    return [(F32, node.like("q", node["heads"] * node["v_dim"])), *cache]


def _present(past: ir.Value) -> ir.Shape:
    assert past.shape is not None
    batch, heads, _, dim = past.shape
    return ir.Shape([batch, heads, "total_sequence_length", dim])


def _attention_work(node: Node, load: Load) -> Work:
    window, dims = node["window"], node["k_dim"] + node["v_dim"]
    seen = min(load.context, window) if window else load.context
    cached = (seen + load.rows) * node["kv_heads"] * dims * load.kv_bytes
    widths = sum(node.width(name) for name in ("q", "k", "v")) + node["heads"] * node["v_dim"]
    flops = 2 * load.rows * (seen + (load.rows + 1) / 2) * node["heads"] * dims
    return Work(cached + 4 * load.rows * widths, flops)


def _route_type(node: Node) -> list[OutputType]:
    shape = node.like("logits", node["used"])
    return [(I32, shape), (F32, shape)]


def _experts_work(node: Node, load: Load) -> Work:
    """Counts the records that `rows` tokens touch when every expert is as likely as the next."""
    experts, used = node["experts"], node["used"]
    touched = 1 - (1 - used / experts) ** load.rows
    sizes = [r * c for r, c in zip(node["rows"], node["cols"], strict=True)]
    moved = touched * node.weight_bytes() + 8 * load.rows * node.width("x")
    return Work(moved, 2 * load.rows * used * sum(sizes))


def _experts_function(node: Node) -> ir.Function:
    columns = (node[name] for name in ("roles", "offsets", "codecs", "rows", "cols"))
    return experts_function(
        [Part(*values) for values in zip(*columns, strict=True)],
        used=node["used"],
        kind=node["activation"],
        alpha=node["alpha"],
        limit=node["limit"],
    )


def _linear_function(node: Node) -> ir.Function:
    return linear_function(node["codec"], node["rows"], node["cols"], bias=node.has("bias"))


def _embedding_function(node: Node) -> ir.Function:
    return embedding_function(node["codec"], node["rows"], node["cols"])


_TABLE = (
    Operator(
        "Positions",
        "Position of each token: the number of attended tokens before it, int64 [batch, sequence].",
        inputs=("attention_mask", "input_ids"),
        outputs=("positions",),
        infer=lambda node: [(I64, node.like("input_ids"))],
        work=lambda node, load: Work(0, 0),
        program=None,
    ),
    Operator(
        "Embedding",
        "Rows of the table, decoded: y[t] = table[input_ids[t]].",
        inputs=("input_ids",),
        weights=("table",),
        attributes={"codec": str, "rows": int, "cols": int},
        infer=_embedding_type,
        work=_embedding_work,
        function=_embedding_function,
        program=Program(inputs=("tokens",)),
    ),
    Operator(
        "RMSNorm",
        "x / sqrt(mean(x²) + eps) · weight, each of `groups` equal runs of the last axis alone.",
        inputs=("x",),
        weights=("weight?",),
        attributes={"eps": float, "groups": int},
        infer=_like("x"),
        work=_elementwise("x"),
        program=Program(inputs=("x",), attributes=("eps", "groups")),
    ),
    Operator(
        "LayerNorm",
        "(x - mean(x)) / sqrt(var(x) + eps) · weight + bias over the last axis.",
        inputs=("x",),
        weights=("weight", "bias?"),
        attributes={"eps": float},
        infer=_like("x"),
        work=_elementwise("x", flops=8),
        program=Program(inputs=("x",), attributes=("eps",)),
    ),
    Operator(
        "Linear",
        "x · weightᵀ + bias, for a weight of `rows` outputs and `cols` inputs.",
        inputs=("x",),
        weights=("weight", "bias?"),
        attributes={"codec": str, "rows": int, "cols": int},
        infer=lambda node: [(F32, node.like("x", node["rows"]))],
        work=_linear_work,
        function=_linear_function,
        program=Program(inputs=("x",)),
    ),
    Operator(
        "Rope",
        "Rotates dimensions offset .. offset + rotary_dims of each head by position · inv_freq; "
        "cos and sin are multiplied by scale. Style neox pairs i with i + rotary_dims / 2, norm "
        "2i with 2i + 1. `inv_freq_long` is in force instead for all tokens of a sequence that has "
        "more than `original_context` of them.",
        inputs=("x", "positions"),
        weights=("inv_freq", "inv_freq_long?"),
        attributes={
            "heads": int,
            "head_dim": int,
            "rotary_dims": int,
            "offset": int,
            "style": str,
            "scale": float,
            "original_context": int,
        },
        infer=_like("x"),
        work=_elementwise("x"),
        program=Program(
            inputs=("x", "positions"),
            attributes=(
                *("heads", "head_dim", "rotary_dims", "offset", "style", "scale"),
                "original_context",
            ),
            with_weight={"inv_freq_long": "extended"},
        ),
    ),
    Operator(
        "Attention",
        "Causal attention of grouped queries over past and new keys and values, each head alone: "
        "softmax(scale · q·k) · v, with a window if `window` > 0, a tanh cap on the scores if "
        "`softcap` > 0, and `sinks`, one logit a head, in the denominator only.",
        inputs=("q", "k", "v", "attention_mask", "past_key", "past_value"),
        weights=("sinks?",),
        outputs=("y", "present_key", "present_value"),
        attributes={
            "heads": int,
            "kv_heads": int,
            "k_dim": int,
            "v_dim": int,
            "scale": float,
            "window": int,
            "softcap": float,
        },
        infer=_attention_type,
        work=_attention_work,
        program=Program(
            inputs=("q", "k", "v", "positions", "sequences"),
            attributes=("heads", "kv_heads", "k_dim", "v_dim", "scale", "window", "softcap"),
            cached=True,
        ),
    ),
    Operator(
        "Route",
        "The `used` experts of each token, best first, and their weights. Gating softmax takes the "
        "largest probabilities over all experts, softmax_selected the softmax over the largest "
        "logits; `bias` takes part in the choice only; renormalise divides by the chosen's sum. "
        "Sparsemixer picks twice the largest logit of those left, each weighed by the softmax over "
        "the logits left whose relative distance from it is at most 2 · eps.",
        inputs=("logits",),
        weights=("bias?",),
        outputs=("ids", "weights"),
        attributes={
            "experts": int,
            "used": int,
            "gating": str,
            "eps": float,
            "renormalise": bool,
            "scale": float,
        },
        infer=_route_type,
        work=_elementwise("logits", flops=8),
        program=Program(
            inputs=("logits",),
            outputs=("ids", "weights"),
            attributes=("experts", "used", "gating", "eps", "renormalise", "scale"),
        ),
    ),
    Operator(
        "Experts",
        "Weighted sum of the chosen experts' MLPs: down(act(gate x, up x)), each with its biases. "
        "Record e of the stack is expert e; roles, offsets, codecs, rows and cols list its parts.",
        inputs=("x", "ids", "weights"),
        weights=("stack",),
        attributes={
            "experts": int,
            "used": int,
            "activation": str,
            "alpha": float,
            "limit": float,
            "roles": list[str],
            "offsets": list[int],
            "codecs": list[str],
            "rows": list[int],
            "cols": list[int],
        },
        infer=_like("x"),
        work=_experts_work,
        function=_experts_function,
        program=Program(
            inputs=("x", "ids", "weights"),
            attributes=("experts", "used", "activation", "alpha", "limit"),
        ),
    ),
    Operator(
        "GatedActivation",
        "silu(gate) · up, gelu_tanh(gate) · up, or the clamped swiglu with its alpha and limit.",
        inputs=("gate", "up"),
        attributes={"activation": str, "alpha": float, "limit": float},
        infer=_like("gate"),
        work=_elementwise("gate", "up", flops=12),
        program=Program(inputs=("gate", "up"), attributes=("activation", "alpha", "limit")),
    ),
    Operator(
        "Add",
        "a + b.",
        inputs=("a", "b"),
        infer=_like("a"),
        work=_elementwise("a", "b", flops=1),
        program=Program(inputs=("a", "b")),
    ),
    Operator(
        "Scale",
        "factor · x.",
        inputs=("x",),
        attributes={"factor": float},
        infer=_like("x"),
        work=_elementwise("x", flops=1),
        program=Program(inputs=("x",), attributes=("factor",)),
    ),
    Operator(
        "SigmoidGate",
        "x · sigmoid(gate); each value of the gate belongs to an equal run of the last axis of x.",
        inputs=("x", "gate"),
        infer=_like("x"),
        work=_elementwise("x", "gate", flops=1),
        program=Program(inputs=("x", "gate")),
    ),
    Operator(
        "Softcap",
        "cap · tanh(x / cap).",
        inputs=("x",),
        attributes={"cap": float},
        infer=_like("x"),
        work=_elementwise("x", flops=10),
        program=Program(inputs=("x",), attributes=("cap",)),
    ),
)

OPERATORS = {operator.name: operator for operator in _TABLE}
