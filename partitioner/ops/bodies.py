"""Function bodies of the operators that decode strips: Embedding, Linear and Experts.

Each body decodes inside a loop, at a position that depends on the round, so that ONNX Runtime
cannot fold the decoded weight into a constant, and holds a bounded part of it at a time. Shapes and
codecs are constants of a body; a node's overload names the body that fits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import onnx_ir as ir

from moesaic.partitioner.ops.body import Body
from moesaic.partitioner.ops.strips import decode, decode_vector
from moesaic.partitioner.plan.codecs import CODECS, STRIP_ROWS, matrix_bytes
from moesaic.plan_format import Part

__all__ = ["activation", "embedding_function", "experts_function", "linear_function"]

DECODED_BYTES = 4 << 20  # of float32 weights at a time: what a cache holds

_A = ir.AttributeType
_MATRIX = {"codec": _A.STRING, "rows": _A.INT, "cols": _A.INT}


def linear_function(codec: str, rows: int, cols: int, *, bias: bool) -> ir.Function:
    """Makes the body of a `Linear` node: inputs x [..., cols], weight uint8, bias uint8 if any."""
    b = Body()
    inputs = [ir.Value(name=name) for name in ("x", "weight", "bias")[: 2 + bias]]
    x = b("Reshape", inputs[0], [-1, cols])
    y = _linear(b, x, inputs[1], codec, rows, cols)
    if bias:
        y = b("Add", y, decode_vector(b, inputs[2], rows))
    overload = f"{codec}_{rows}x{cols}" + "_bias" * bias
    return b.function("Linear", overload, inputs, _like(b, y, inputs[0], rows), _MATRIX)


def embedding_function(codec: str, rows: int, cols: int) -> ir.Function:
    """Makes the body of an `Embedding` node: inputs input_ids int64 and table uint8."""
    b = Body()
    ids, table = ir.Value(name="input_ids"), ir.Value(name="table")
    flat = b("Reshape", ids, [-1])
    strip = CODECS[codec].strip_bytes(cols)

    def row(b: Body, token: ir.Value, _: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value]]:
        row = b("Gather", flat, b("Reshape", token, [1]))
        start = b("Mul", b("Div", row, STRIP_ROWS), strip)
        data = b.cut(table, start, b("Add", start, strip), 0)
        values = decode(b, codec, b("Reshape", data, [1, strip]), cols)
        return [], [b("Gather", values, b("Squeeze", b("Mod", row, STRIP_ROWS)), axis=0)]

    (y,) = b.loop(b("Size", flat), [], row, scans=1)
    shape = b("Concat", b("Shape", ids), [cols], axis=0)
    return b.function(
        "Embedding",
        f"{codec}_{rows}x{cols}",
        [ids, table],
        b("Reshape", y, shape),
        _MATRIX,
    )


@dataclass(frozen=True, slots=True)
class _Expert:
    """The MLP of one expert in a body: its record, uint8 [stride], and what it consists of."""

    body: Body
    record: ir.Value
    parts: dict[str, Part]

    def linear(self, role: str, x: ir.Value) -> ir.Value:
        """Returns x times a part, and its bias if there is one."""
        part = self.parts[role]
        y = _linear(self.body, x, self._data(part), part.codec, part.rows, part.cols)
        if bias := self.parts.get(f"{role}_bias"):
            y = self.body("Add", y, decode_vector(self.body, self._data(bias), bias.rows))
        return y

    def _data(self, part: Part) -> ir.Value:
        end = part.offset + matrix_bytes(part.codec, part.rows, part.cols)
        return self.body.cut(self.record, part.offset, end, 0)


def experts_function(
    parts: Sequence[Part], *, used: int, kind: str, alpha: float, limit: float
) -> ir.Function:
    """Makes the body of an `Experts` node.

    Inputs: x [..., D], ids int32 [..., used], weights [..., used], stack uint8 [experts, stride].
    Each expert that some token has chosen is decoded once, in ascending order.

    Args:
        parts: The parts of a record.
        used: Experts of a token.
        kind: The activation.
        alpha: Its slope, where it has one.
        limit: Its limit, where it has one.
    """
    b = Body()
    inputs = [ir.Value(name=name) for name in ("x", "ids", "weights", "stack")]
    by_role = {part.role: part for part in parts}
    width = by_role["gate"].cols
    x = b("Reshape", inputs[0], [-1, width])
    ids = b("Reshape", b.cast(inputs[1], ir.DataType.INT64), [-1, used])
    weights = b("Reshape", inputs[2], [-1, used])
    chosen = b("Unique", b("Reshape", ids, [-1]))

    def add_expert(
        b: Body, number: ir.Value, state: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        expert = b("Gather", chosen, number)
        places = b("NonZero", b("Equal", ids, expert))  # [2, tokens that chose it]
        tokens = b("Gather", places, 0, axis=0)
        mlp = _Expert(b, b("Gather", inputs[3], expert, axis=0), by_role)
        rows = b("Gather", x, tokens, axis=0)
        gate, up = mlp.linear("gate", rows), mlp.linear("up", rows)
        hidden = activation(b, kind, gate, up, alpha, limit)
        weight = b("GatherND", weights, b("Transpose", places, perm=[1, 0]))
        result = b("Mul", mlp.linear("down", hidden), b("Unsqueeze", weight, [1]))
        index = b("Unsqueeze", tokens, [1])
        return [b("ScatterND", state[0], index, result, reduction="add")], []

    zero = b("Expand", b.floats(0), b("Shape", x))
    (y,) = b.loop(b("Size", chosen), [(zero, ir.DataType.FLOAT, 2)], add_expert)
    overload = sha256(repr((parts, used, kind, alpha, limit)).encode()).hexdigest()[:16]
    attributes = {
        "experts": _A.INT,
        "used": _A.INT,
        "activation": _A.STRING,
        "alpha": _A.FLOAT,
        "limit": _A.FLOAT,
        "roles": _A.STRINGS,
        "offsets": _A.INTS,
        "codecs": _A.STRINGS,
        "rows": _A.INTS,
        "cols": _A.INTS,
    }
    return b.function("Experts", overload, inputs, _like(b, y, inputs[0], width), attributes)


def activation(
    b: Body, kind: str, gate: ir.Value, up: ir.Value, alpha: float, limit: float
) -> ir.Value:
    """Returns the gated activation of two float32 values of one shape."""
    if kind == "silu":
        return b("Mul", b("Mul", gate, b("Sigmoid", gate)), up)
    if kind == "gelu_tanh":
        return b("Mul", b("Gelu", gate, approximate="tanh"), up)
    if kind == "swiglu_clamped":
        gate = b("Min", gate, b.floats(limit))
        up = b("Clip", up, b.floats(-limit), b.floats(limit))
        glu = b("Mul", gate, b("Sigmoid", b("Mul", gate, b.floats(alpha))))
        return b("Mul", glu, b("Add", up, b.floats(1)))
    raise ValueError(f"no activation is called {kind!r}")


def _linear(b: Body, x: ir.Value, data: ir.Value, codec: str, rows: int, cols: int) -> ir.Value:
    """Returns x [n, cols] times the strips `data`, [n, rows], some strips at a time."""
    strip, strips = CODECS[codec].strip_bytes(cols), -(-rows // STRIP_ROWS)
    rounds = -(-strips * STRIP_ROWS * cols * 4 // DECODED_BYTES)
    step = -(-strips // rounds)
    rounds = -(-strips // step)

    def multiply(
        b: Body, number: ir.Value, _: list[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        start = b("Mul", b("Reshape", number, [1]), step * strip)
        end = b("Min", b("Add", start, step * strip), [strips * strip])
        some = b("Reshape", b.cut(data, start, end, 0), [-1, strip])
        y = b("Gemm", x, decode(b, codec, some, cols), transB=1)
        missing = b("Sub", [step * STRIP_ROWS], b("Shape", y, start=1, end=2))
        return [], [b("Pad", y, b("Concat", [0, 0, 0], missing, axis=0))]

    (blocks,) = b.loop(rounds, [], multiply, scans=1)  # [rounds, n, rows of a round]
    y = b("Reshape", b("Transpose", blocks, perm=[1, 0, 2]), [-1, rounds * step * STRIP_ROWS])
    return b.cut(y, 0, rows)


def _like(b: Body, y: ir.Value, x: ir.Value, width: int) -> ir.Value:
    """Returns y with the leading axes of x."""
    leading = b("Shape", x, start=0, end=-1)
    return b("Reshape", y, b("Concat", leading, [width], axis=0))
