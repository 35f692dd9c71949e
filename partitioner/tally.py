"""The predicted time of a placement, kept up to date while nodes move between devices."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from moesaic.partitioner.arch import PLACEMENT_KEY
from moesaic.partitioner.cost import Loads, Seconds, integer_share, seconds, work
from moesaic.partitioner.machine import CPU, DeviceSpec
from moesaic.partitioner.ops import OPERATORS, Load, Work

__all__ = ["Item", "Tally"]


@dataclass(slots=True)
class Item:
    """A node that takes time.

    Attributes:
        name: Its name.
        op: Its operator.
        kind: Its placement class: ``embed``, ``dense``, ``experts`` or ``head``.
        layer: Its layer, -1 outside of layers.
        node: The node of the graph.
        inputs: Items whose results it reads, with the name and the width of each value.
        wanted: Whether it only works on rows whose logits are wanted.
        readers: By value, the items that read it, in order.
        touch: For Experts, by load: how likely each expert is to be read.
    """

    name: str
    op: str
    kind: str
    layer: int
    node: ir.Node
    inputs: list[tuple[int, str, int]] = field(default_factory=list)
    wanted: bool = False
    readers: dict[str, list[int]] = field(default_factory=dict)
    touch: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class _Share:
    """The part of an Experts node on one device: how many experts, and how many are touched."""

    count: int
    decode: float
    prefill: float

    def plus(self, other: "_Share", sign: int) -> "_Share":
        return _Share(
            self.count + sign * other.count,
            max(self.decode + sign * other.decode, 0.0),
            max(self.prefill + sign * other.prefill, 0.0),
        )


class Tally:
    """Times of nodes and of copies between devices.

    Every node starts on the host. Copies are counted as lowering makes them: a value travels to a
    device once, and all that a node is the first to need from one device travels together. The
    parts of a split Experts node run at the same time.

    Args:
        graph: The model.
        specs: The devices, with their speed.
        loads: The steps to predict.
        odds: By Experts node, the expected number of a token's choices of each expert; by default
            all are alike.
    """

    def __init__(
        self,
        graph: ir.Graph,
        specs: Sequence[DeviceSpec],
        loads: Loads,
        odds: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.items = _items(graph, loads, odds or {})
        self.where = [CPU] * len(self.items)
        self.loads = loads
        self._facts = {spec.name: spec.speed for spec in specs}
        self._shares: dict[int, dict[str, _Share]] = {}
        self._alone: dict[tuple[int, str], Seconds] = {}
        self.total = Seconds()
        for index in range(len(self.items)):
            self.total += self.time(index) + self.copies(index)[1]

    def copy(self) -> "Tally":
        """Returns a tally of the same placement that moves on its own."""
        twin = copy.copy(self)
        twin.where = list(self.where)
        twin._shares = {index: dict(shares) for index, shares in self._shares.items()}
        return twin

    def move(self, indices: Iterable[int], device: str) -> None:
        """Moves whole nodes to a device."""
        indices = list(indices)
        affected = self.near(indices)
        self.total -= self._sum(affected)
        for index in indices:
            self.where[index] = device
            self._shares.pop(index, None)
        self.total += self._sum(affected)

    def give(self, index: int, expert: int, device: str) -> None:
        """Moves one expert from the host to a device, which from then on is the node's device."""
        affected = self.near([index])
        self.total -= self._sum(affected)
        shares = self._shares.setdefault(index, {CPU: self._whole(index)})
        touch = self.items[index].touch
        assert touch is not None
        one = _Share(1, float(touch[0][expert]), float(touch[1][expert]))
        shares[CPU] = shares[CPU].plus(one, -1)
        shares[device] = shares.get(device, _Share(0, 0.0, 0.0)).plus(one, 1)
        self.where[index] = device
        if shares[CPU].count == 0:
            del self._shares[index]
        self.total += self._sum(affected)

    def split(self, index: int, owned: Mapping[str, Sequence[int]], home: str) -> None:
        """Splits an Experts node; the parts' results come together at `home`."""
        affected = self.near([index])
        self.total -= self._sum(affected)
        touch = self.items[index].touch
        assert touch is not None
        self.where[index] = home
        self._shares[index] = {
            device: _Share(
                len(experts),
                float(touch[0][list(experts)].sum()),
                float(touch[1][list(experts)].sum()),
            )
            for device, experts in owned.items()
        }
        self.total += self._sum(affected)

    def time(self, index: int) -> Seconds:
        """Returns the time of a node, and of the copies between its parts."""
        shares = self._shares.get(index)
        if shares is None:
            return self.time_on(index, self.where[index])
        parts = []
        for device in shares:
            part = self.part(index, device)
            if device != self.where[index]:
                part += self._between_parts(index, device)
            parts.append(part)
        add = self._facts[self.where[index]].latency
        return Seconds(
            max(part.decode for part in parts) + add, max(part.prefill for part in parts) + add
        )

    def part(self, index: int, device: str) -> Seconds:
        """Returns the time of a node, or of its experts there, on a device."""
        shares = self._shares.get(index)
        if shares is None:
            return self.time_on(index, device)
        item, share, whole = self.items[index], shares[device], self._whole(index)
        times = []
        for load, part in (
            (self.loads.decode, share.decode / whole.decode),
            (self.loads.prefill, share.prefill / whole.prefill),
        ):
            amount = work(item.node, load)
            times.append(
                self._seconds(item, Work(part * amount.bytes, part * amount.flops), device)
            )
        return Seconds(*times)

    def parts(self, index: int) -> dict[str, float]:
        """Returns the devices that work on a node, and the part of its weights that each holds."""
        shares = self._shares.get(index)
        if shares is None:
            return {self.where[index]: 1.0}
        count = self._whole(index).count
        return {device: share.count / count for device, share in shares.items()}

    def copies(self, index: int) -> tuple[int, Seconds]:
        """Returns the copies that a node is the first to need, and their time."""
        item, here = self.items[index], self.where[index]
        sources: dict[str, int] = {}
        for producer, value, width in item.inputs:
            there = self.where[producer]
            if there != here and not self._has(self.items[producer].readers[value], index, here):
                sources[there] = sources.get(there, 0) + width
        time = Seconds()
        for source, width in sources.items():
            time += self._link(source, here, width, item.wanted)
        return len(sources), time + self._logits(index)

    def split_copies(self, index: int) -> tuple[int, Seconds]:
        """Returns the copies between the parts of a split node, and their time."""
        shares = self._shares.get(index, {})
        away = [device for device in shares if device != self.where[index]]
        times = [self._between_parts(index, device) for device in away]
        return 2 * len(away), sum(times, Seconds())

    def near(self, indices: Iterable[int]) -> set[int]:
        """Returns the items whose time depends on where these are."""
        found = set(indices)
        for index in list(found):
            for readers in self.items[index].readers.values():
                found.update(readers)
            for producer, value, _ in self.items[index].inputs:
                found.update(self.items[producer].readers[value])
        return found

    def _has(self, readers: Sequence[int], index: int, device: str) -> bool:
        """Whether an earlier reader of a value has brought it to a device."""
        for reader in readers:
            if reader >= index:
                return False
            if self.where[reader] == device:
                return True
        return False

    def _logits(self, index: int) -> Seconds:
        """Returns the time until the host has the logits."""
        if index != len(self.items) - 1 or self.where[index] == CPU:
            return Seconds()
        return self._link(self.where[index], CPU, _width(self.items[index].node), True)

    def _between_parts(self, index: int, device: str) -> Seconds:
        item, home = self.items[index], self.where[index]
        there = sum(width for _, _, width in item.inputs)
        back = _width(item.node)
        return self._link(home, device, there, False) + self._link(device, home, back, False)

    def _link(self, source: str, target: str, width: int, wanted: bool) -> Seconds:
        """Returns the time of copying rows of `width` numbers, through the host if need be."""
        chunk = 1 if wanted else self.loads.prefill.rows
        time = Seconds()
        for device in (source, target):
            facts = self._facts[device]
            if device != CPU:
                row = 4 * width / facts.link_bandwidth
                time += Seconds(facts.link_latency + row, facts.link_latency + chunk * row)
        return time

    def _whole(self, index: int) -> _Share:
        touch = self.items[index].touch
        assert touch is not None
        return _Share(len(touch[0]), float(touch[0].sum()), float(touch[1].sum()))

    def time_on(self, index: int, device: str) -> Seconds:
        """Returns the time of a whole node on a device."""
        key = index, device
        if key not in self._alone:
            item = self.items[index]
            prefill = Load(1, 0) if item.wanted else self.loads.prefill
            self._alone[key] = Seconds(
                *(
                    self._seconds(item, self._work(item, load), device)
                    for load in (self.loads.decode, prefill)
                )
            )
        return self._alone[key]

    def _work(self, item: Item, load: Load) -> Work:
        """Returns the work of a whole node; experts are touched as often as the profile says."""
        amount = work(item.node, load)
        if item.touch is None:
            return amount
        stack = item.node.inputs[-1]
        assert stack is not None
        assert stack.const_value is not None
        uniform = _touched(np.full(len(item.touch[0]), _even(item.node)), load.rows).sum()
        found = item.touch[0 if load.rows == 1 else 1].sum()
        record = stack.const_value.nbytes / len(item.touch[0])
        return Work(amount.bytes + float(found - uniform) * record, amount.flops)

    def _seconds(self, item: Item, amount: Work, device: str) -> float:
        share = integer_share(item.node)
        return seconds(item.op, amount, share, self._facts[device])

    def _sum(self, indices: Iterable[int]) -> Seconds:
        total = Seconds()
        for index in indices:
            total += self.time(index) + self.copies(index)[1]
        return total


def _items(graph: ir.Graph, loads: Loads, odds: Mapping[str, Sequence[float]]) -> list[Item]:
    items: list[Item] = []
    made: dict[str, int] = {}  # the item that makes a value
    for node in graph:
        if OPERATORS[node.op_type].program is None:
            continue
        kind, _, layer = node.metadata_props[PLACEMENT_KEY].partition(".")
        item = Item(str(node.name), node.op_type, kind, int(layer or -1), node)
        for value in dict.fromkeys(v for v in node.inputs if v is not None and v.name in made):
            producer = made[str(value.name)]
            item.inputs.append((producer, str(value.name), _size(value)))
            items[producer].readers.setdefault(str(value.name), []).append(len(items))
        if node.op_type == "Experts":
            expected = np.asarray(
                odds.get(item.name, [_even(node)] * node.attributes["experts"].value)
            )
            rows = loads.decode.rows, loads.prefill.rows
            item.touch = _touched(expected, rows[0]), _touched(expected, rows[1])
        made.update((str(value.name), len(items)) for value in node.outputs)
        items.append(item)
    _mark_wanted(items)
    return items


def _mark_wanted(items: Sequence[Item]) -> None:
    """Marks the chain of single values that ends in the logits: the rows are chosen before it."""
    item = items[-1]
    while len(item.inputs) == 1:
        item.wanted = True
        item = items[item.inputs[0][0]]


def _touched(expected: np.ndarray, rows: int) -> np.ndarray:
    """Returns how likely each expert is chosen by one of `rows` tokens at least."""
    chance: np.ndarray = 1.0 - (1.0 - np.minimum(expected, 1.0)) ** rows
    return chance


def _even(node: ir.Node) -> float:
    return float(node.attributes["used"].value / node.attributes["experts"].value)


def _width(node: ir.Node) -> int:
    return _size(node.outputs[0])


def _size(value: ir.Value) -> int:
    assert value.shape is not None
    return int(value.shape[-1])  # type: ignore[arg-type]
