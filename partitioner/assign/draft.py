"""A placement in the making: what is pinned, which nodes may move where, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesaic.partitioner.assign.chain import Move, Unit
from moesaic.partitioner.assign.rules import Pin
from moesaic.partitioner.machine import CPU
from moesaic.partitioner.placement import Placement
from moesaic.partitioner.tally import Item

__all__ = ["build_placement", "layer_homes", "make_units"]

_MOVED = {
    "dense": "budget: dense weights and KV first",
    "head": "budget: dense weights and KV first",
    "experts": "budget: room for these experts",
    "embed": "budget: room for the embedding too",
}
_LOOKUP = "embedding: a lookup, cheap on the host"


def layer_homes(
    sizes: Mapping[int, float], head: float, capacities: Mapping[str, float]
) -> dict[int, str]:
    """Returns the GPU of each layer, and under -1 that of the head: contiguous ranges.

    Args:
        sizes: What each layer takes, in any unit.
        head: What the head takes, which is on the last GPU.
        capacities: What each GPU should take a part of in proportion to.
    """
    names = list(capacities)
    total, capacity = sum(sizes.values()) + head, sum(capacities.values())
    homes, done = {}, 0.0
    for layer, size in sorted(sizes.items()):
        middle = (done + size / 2) / total * capacity
        filled = 0.0
        for name in names:
            filled += capacities[name]
            if middle < filled:
                break
        homes[layer] = name
        done += size
    return {**homes, -1: names[-1]}


def make_units(
    items: Sequence[Item], pins: Mapping[str, Pin], homes: Mapping[int, str]
) -> list[Unit]:
    """Returns the groups of nodes that may move, in the order of the graph."""
    groups: dict[tuple[str, int], list[int]] = {}
    for index, item in enumerate(items):
        if item.name not in pins:
            groups.setdefault((item.kind, item.layer), []).append(index)
    return [
        Unit(kind, layer, tuple(indices), homes[layer]) for (kind, layer), indices in groups.items()
    ]


@dataclass(frozen=True, slots=True)
class _Moved:
    """What of a unit has moved: all of it, or some experts."""

    all: bool
    experts: tuple[int, ...]


def build_placement(
    items: Sequence[Item],
    pins: Mapping[str, Pin],
    units: Sequence[Unit],
    moves: Sequence[Move],
    stays: Mapping[Unit, str],
) -> Placement:
    """Returns the placement after some moves.

    Args:
        items: The nodes.
        pins: Nodes placed by rules.
        units: What may move.
        moves: What moved.
        stays: Why units that did not move stayed on the host.
    """
    nodes = {item.name: pins[item.name].device if item.name in pins else CPU for item in items}
    why = {(name, pin.device): f"--place '{pin.rule}'" for name, pin in pins.items()}
    owned: dict[str, dict[str, list[int]]] = {}
    moved = _moved(moves)
    for unit in units:
        found = moved.get(unit)
        for index in unit.items:
            item = items[index]
            if found is None:
                why[item.name, CPU] = _LOOKUP if unit.kind == "embed" else stays.get(unit, "")
            elif found.all or item.op != "Experts" or len(found.experts) == _count(item):
                nodes[item.name] = unit.device
                why[item.name, unit.device] = _MOVED[unit.kind]
            else:
                nodes[item.name] = unit.device
                owned[item.name] = _split(item, found.experts, unit.device)
                why.update(_split_reasons(item, found.experts, unit.device))
    return Placement(nodes, owned, why)


def _moved(moves: Sequence[Move]) -> dict[Unit, _Moved]:
    moved: dict[Unit, _Moved] = {}
    for move in moves:
        before = moved.get(move.unit, _Moved(False, ()))
        if move.expert is None:
            moved[move.unit] = _Moved(True, ())
        else:
            moved[move.unit] = _Moved(before.all, (*before.experts, move.expert))
    return moved


def _count(item: Item) -> int:
    return int(item.node.attributes["experts"].value)


def _split(item: Item, experts: Sequence[int], device: str) -> dict[str, list[int]]:
    rest = sorted(set(range(_count(item))) - set(experts))
    return {device: sorted(experts), CPU: rest}


def _split_reasons(item: Item, experts: Sequence[int], device: str) -> dict[tuple[str, str], str]:
    hot, count = len(experts), _count(item)
    return {
        (item.name, device): f"usage: hottest {hot} of {count}",
        (item.name, CPU): f"usage: the other {count - hot} of {count}",
    }
