"""What an entry of the operator table consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

DOMAIN = "ai.moesaic"

OutputType = tuple[ir.DataType, ir.Shape]


@dataclass(frozen=True, slots=True)
class Load:
    """A step of `rows` tokens that attend to `context` older ones, `kv_bytes` a cached value."""

    rows: int
    context: int
    kv_bytes: float = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What a step moves through memory (bytes, weights included) and computes (flops)."""

    bytes: float
    flops: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.bytes + other.bytes, self.flops + other.flops)


@dataclass(frozen=True, slots=True)
class Program:
    """The form of an operator in a plan's program.

    Attributes:
        inputs: Graph inputs that stay, by name, or reserved buffers (tokens, positions, sequences).
        outputs: Graph outputs that stay, by name.
        attributes: Attributes that stay; the others only serve the graph.
        cached: Whether the step owns a KV cache; lowering then sets the attribute `cache`.
        with_weight: Reserved buffers that are inputs if an optional weight is there, by weight.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("y",)
    attributes: tuple[str, ...] = ()
    cached: bool = False
    with_weight: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the domain `ai.moesaic`.

    Operators act on the last axis and take any leading axes. A graph node's inputs are `inputs` and
    then `weights`, which are initializers; a name that ends in `?` may be absent.

    Attributes:
        name: The operator's type in the graph and in the program.
        doc: What it computes.
        inputs: Names of the activations.
        weights: Names of the weights.
        outputs: Names of the results.
        attributes: Types of the attributes: int, float, str, bool, or a list of int or str.
        infer: Element types and shapes of a node's outputs, from its inputs and attributes.
        work: What a node costs under a load.
        program: Its form in the program, None if it has none.
        function: Makes the body of a node in standard operators; its overload is the node's.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    infer: Callable[["Node"], list[OutputType]]
    work: Callable[["Node", Load], Work]
    program: Program | None
    weights: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("y",)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[["Node"], ir.Function] | None = None

    def arguments(self, node: ir.Node) -> dict[str, ir.Value | None]:
        """Returns a node's inputs and weights by name, None for those that are absent."""
        names = [name.rstrip("?") for name in (*self.inputs, *self.weights)]
        values = [*node.inputs, *[None] * (len(names) - len(node.inputs))]
        return dict(zip(names, values, strict=True))

    def step_attributes(self, node: ir.Node) -> dict[str, Any]:
        """Returns the attributes of the program's step, with their declared Python types."""
        assert self.program is not None
        return {name: self._attribute(node, name) for name in self.program.attributes}

    def _attribute(self, node: ir.Node, name: str) -> Any:
        value = node.attributes[name].value
        return bool(value) if self.attributes[name] is bool else value


class Node:
    """A graph node as the table's functions see it: attributes, inputs and weights by name."""

    def __init__(self, node: ir.Node, operator: Operator) -> None:
        self._node = node
        self._arguments = operator.arguments(node)

    def __getitem__(self, attribute: str) -> Any:
        return self._node.attributes[attribute].value

    def has(self, name: str) -> bool:
        """Tells whether an optional input or weight is there."""
        return self._arguments[name] is not None

    def input(self, name: str) -> ir.Value:
        """Returns an input or a weight that must be there."""
        value = self._arguments[name]
        assert value is not None, f"{self._node.name}: no {name}"
        return value

    def width(self, name: str) -> int:
        """Returns the size of the last axis of an input."""
        shape = self.input(name).shape
        assert shape is not None
        return int(shape[-1])  # type: ignore[arg-type]

    def weight_bytes(self, name: str | None = None) -> int:
        """Returns the bytes of one weight, or of all."""
        values = self._arguments.values() if name is None else [self._arguments[name]]
        return sum(v.const_value.nbytes for v in values if v is not None and v.const_value)

    def like(self, name: str, width: int | None = None) -> ir.Shape:
        """Returns the shape of an input, with another size of the last axis if given."""
        shape = self.input(name).shape
        assert shape is not None
        return ir.Shape([*shape[:-1], shape[-1] if width is None else width])
