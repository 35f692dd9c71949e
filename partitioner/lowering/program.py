"""A program before its buffers have a place: what the passes of lowering work on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from moesaic.plan_format import Cache, Step

RESERVED: dict[str, Literal["tokens", "wanted"]] = {
    "tokens": "tokens",
    "positions": "tokens",
    "sequences": "tokens",
    "wanted": "wanted",
    "extended": "tokens",
}
"""The buffers that the executor fills, and what their rows are."""

RESULT = "logits"


@dataclass(frozen=True, slots=True)
class Value:
    """What a buffer will hold: `width` numbers a row, on one device."""

    name: str
    device: str
    dtype: Literal["f32", "i32"]
    rows: Literal["tokens", "wanted"]
    width: int


@dataclass(slots=True)
class Program:
    """Steps in order, and the values they pass on.

    Attributes:
        steps: The steps; inputs and outputs are names of values.
        values: Every value by name, reserved ones excepted until copies are in place.
        caches: One for each Attention step, in order.
    """

    steps: list[Step] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    caches: list[Cache] = field(default_factory=list)

    def producer(self, value: str) -> int:
        """Returns the index of the step that writes a value."""
        return next(i for i, step in enumerate(self.steps) if value in step.outputs)


def reserved(name: str, device: str) -> Value:
    """Returns the reserved value `name` on a device."""
    return Value(f"{name}@{device}", device, "i32", RESERVED[name], 1)


def activations(names: Iterable[str]) -> list[str]:
    """Returns the names that are not reserved."""
    return [name for name in names if name not in RESERVED]


def step(
    op: str,
    device: str,
    nodes: Sequence[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Step:
    """Returns a step without attributes and weights."""
    return Step(
        op=op,
        device=device,
        nodes=list(nodes),
        attrs={},
        inputs=list(inputs),
        outputs=list(outputs),
        weights=[],
    )
