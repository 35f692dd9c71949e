"""Facts that reports derive from a plan: classes of nodes, layers, and bytes by class.

Node names follow one scheme (`/embed`, `/layers.N/…`, `/norm`, `/lm_head`), which tells class and
layer. Nothing here is needed to execute a plan.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from moesaic.plan_format import Assignment, PlanFile, Step

__all__ = [
    "CLASSES",
    "Group",
    "class_of",
    "experts_by_layer",
    "group_nodes",
    "layer_of",
    "layer_ranges",
    "weights_by_class",
    "without_layer",
]

CLASSES: Final = ("embed", "dense", "experts", "head")
"""Placement classes in the order of execution; ``dense`` is all of a layer but routed experts."""

MAX_DIGITS: Final = 7
"""Digits that a layer's number stays below."""

_LAYER = "layers."


def class_of(node: str) -> str:
    """Returns the placement class of a node by its name, one of `CLASSES`."""
    if layer_of(node) is not None:
        return "experts" if node.endswith("/moe/experts") else "dense"
    return "embed" if node in ("/embed", "/positions") else "head"


def layer_of(node: str) -> int | None:
    """Returns the layer that a node is in, None outside of the layers."""
    for part in node.split("/"):
        number = part.removeprefix(_LAYER)
        if number != part and number.isascii() and number.isdecimal() and len(number) < MAX_DIGITS:
            return int(number)
    return None


def without_layer(node: str) -> str:
    """Returns the name shared by such nodes of all layers: ``/layers.*/moe/experts``."""
    return "/".join(_LAYER + "*" if part.startswith(_LAYER) else part for part in node.split("/"))


def layer_ranges(layers: Iterable[int]) -> str:
    """Returns layers for people: ``0-3, 7``; empty for none."""
    spans: list[list[int]] = []
    for layer in sorted(set(layers)):
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


@dataclass(slots=True)
class Group:
    """Nodes that have a name, a device and a reason in common."""

    name: str
    device: str
    why: str
    count: int = 0
    weight_bytes: int = 0
    layers: list[int] = field(default_factory=list)


def group_nodes(
    rows: Iterable[tuple[Assignment, str]], name: Callable[[str], str] = without_layer
) -> list[Group]:
    """Groups rows of the assignment, in the order of their first node.

    Args:
        rows: The rows, each with its reason.
        name: Says by what nodes are grouped: by `class_of`, or by default over the layers.
    """
    groups: dict[tuple[str, str, str], Group] = {}
    for row, why in rows:
        key = name(row.node), row.device, why
        group = groups.setdefault(key, Group(*key))
        group.count += 1
        group.weight_bytes += row.weight_bytes
        layer = layer_of(row.node)
        if layer is not None:
            group.layers.append(layer)
    return list(groups.values())


def weights_by_class(file: PlanFile) -> dict[str, dict[str, int]]:
    """Returns the bytes of weights by device and class; they add up to the memory table's.

    A tensor that several nodes of a device read counts once, for the first of them.
    """
    sizes = {tensor.name: tensor for tensor in file.tensors}
    needed: dict[tuple[str, str], tuple[str, int]] = {}
    for step in file.program:
        for name in filter(None, step.weights):
            tensor = sizes.get(name)
            if tensor is None:
                continue
            owned = tensor.bytes if step.experts is None else len(step.experts) * tensor.stride
            kind, before = needed.get((step.device, name), (_class_of_step(step), 0))
            needed[step.device, name] = kind, max(before, owned)
    result = {device.name: dict.fromkeys(CLASSES, 0) for device in file.devices}
    for (device, _), (kind, size) in needed.items():
        result.setdefault(device, dict.fromkeys(CLASSES, 0))[kind] += size
    return result


def experts_by_layer(file: PlanFile) -> dict[int, dict[str, float]]:
    """Returns, for each layer with routed experts, the share of them that each device owns."""
    counts: dict[int, dict[str, int]] = {}
    stacks = {tensor.name: tensor.count for tensor in file.tensors}
    for step in file.program:
        layer = layer_of(_first(step.nodes))
        if step.op != "Experts" or layer is None:
            continue
        owned = stacks.get(str(_first(step.weights)), 0)
        owned = owned if step.experts is None else len(step.experts)
        devices = counts.setdefault(layer, {})
        devices[step.device] = devices.get(step.device, 0) + owned
    return {
        layer: {device: n / sum(devices.values()) for device, n in devices.items() if n}
        for layer, devices in sorted(counts.items())
    }


def _class_of_step(step: Step) -> str:
    if step.op == "Embedding":
        return "embed"
    return "experts" if step.op == "Experts" else class_of(_first(step.nodes))


def _first(names: Sequence[str | None]) -> str:
    return next(filter(None, names), "")
