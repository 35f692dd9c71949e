"""Writes the bodies of operators: nodes of standard ONNX operators, one Python call each."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike

from moesaic.partitioner.ops.operator import DOMAIN

__all__ = ["OPSET", "Body"]

OPSET = 23


class Body:
    """Nodes under construction.

    Calling it adds a node and returns its output: `y = b("Add", x, b.floats(1))`. Inputs may be
    values or integers; an integer (or a list of them) becomes an int64 constant.
    """

    def __init__(self, names: Iterator[int] | None = None) -> None:
        self.nodes: list[ir.Node] = []
        self._names = names or itertools.count()  # shared with subgraphs: no name may hide another
        self._integers: dict[str, ir.Value] = {}

    def value(self, name: str = "v", dtype: ir.DataType | None = None, rank: int = 0) -> ir.Value:
        """Returns a new value with a name of its own; `dtype` and `rank` are those of a loop's."""
        kind = None if dtype is None else ir.TensorType(dtype)
        shape = None if dtype is None else ir.Shape([None] * rank)
        return ir.Value(name=f"{name}_{next(self._names)}", type=kind, shape=shape)

    def __call__(
        self, op: str, *inputs: ir.Value | int | Sequence[int] | None, **attributes: Any
    ) -> ir.Value:
        """Adds a node with one output."""
        return self.many(op, 1, *inputs, **attributes)[0]

    def many(
        self,
        op: str,
        outputs: int,
        *inputs: ir.Value | int | Sequence[int] | None,
        **attributes: Any,
    ) -> list[ir.Value]:
        """Adds a node with several outputs."""
        values = [self.value(op.lower()) for _ in range(outputs)]
        node = ir.Node(
            "",
            op,
            [self._input(x) for x in inputs],
            [ir.convenience.convert_attribute(k, v) for k, v in attributes.items()],
            outputs=values,
        )
        self.nodes.append(node)
        return values

    def constant(self, array: ArrayLike, dtype: type[np.generic]) -> ir.Value:
        """Returns a constant tensor."""
        return self("Constant", value=ir.tensor(np.asarray(array, dtype)))

    def floats(self, array: ArrayLike) -> ir.Value:
        """Returns a float32 constant."""
        return self.constant(array, np.float32)

    def bytes(self, array: ArrayLike) -> ir.Value:
        """Returns a uint8 constant."""
        return self.constant(array, np.uint8)

    def cast(self, x: ir.Value, to: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """Converts the elements of a tensor."""
        return self("Cast", x, to=int(to))

    def cut(self, x: ir.Value, start: Any, end: Any, axis: int = -1) -> ir.Value:
        """Returns `start` .. `end` of an axis; both may be integers or int64 [1] values."""
        start, end = ([n] if isinstance(n, int) else n for n in (start, end))
        return self("Slice", x, start, end, [axis])

    def loop(
        self,
        count: ir.Value | int,
        carried: Sequence[tuple[ir.Value, ir.DataType, int]],
        step: Callable[["Body", ir.Value, list[ir.Value]], tuple[list[ir.Value], list[ir.Value]]],
        scans: int = 0,
    ) -> list[ir.Value]:
        """Adds a `Loop` of `count` (int64 scalar) rounds.

        Args:
            count: How often.
            carried: (first value, element type, rank) of what a round hands to the next one.
            step: Adds a round's nodes to the body it is given, from the round's number (int64
                scalar) and the carried values; returns the next carried values and its results,
                which are stacked.
            scans: Number of such results, float32.

        Returns:
            The last carried values, then the stacked results.
        """
        inner = Body(self._names)
        number = self.value("round", ir.DataType.INT64)
        going = self.value("going", ir.DataType.BOOL)
        states = [self.value("state", dtype, rank) for _, dtype, rank in carried]
        kept, results = step(inner, number, states)
        outputs = [inner("Identity", x) for x in (going, *kept, *results)]
        dtypes = [ir.DataType.BOOL, *(d for _, d, _ in carried), *[ir.DataType.FLOAT] * scans]
        for output, dtype in zip(outputs, dtypes, strict=True):
            output.type = ir.TensorType(dtype)
        graph = ir.Graph([number, going, *states], outputs, nodes=inner.nodes, name="round")
        first = [value for value, _, _ in carried]
        return self.many("Loop", len(carried) + scans, count, None, *first, body=graph)

    def function(
        self,
        name: str,
        overload: str,
        inputs: Sequence[ir.Value],
        output: ir.Value,
        attributes: Mapping[str, ir.AttributeType],
    ) -> ir.Function:
        """Makes a model-local function of the nodes; its attributes only describe it."""
        graph = ir.Graph(inputs, [output], nodes=self.nodes, opset_imports={"": OPSET})
        required = [ir.Attr(k, kind, None) for k, kind in attributes.items()]
        return ir.Function(DOMAIN, name, overload, graph=graph, attributes=required)

    def _input(self, x: ir.Value | int | Sequence[int] | None) -> ir.Value | None:
        if x is None or isinstance(x, ir.Value):
            return x
        key = str(x)
        if key not in self._integers:
            self._integers[key] = self.constant(x, np.int64)
        return self._integers[key]
