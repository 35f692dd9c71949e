"""Bytes of weights and caches that nodes take on a device."""

import copy
from collections.abc import Iterable, Mapping

from moesaic.partitioner.ops import OPERATORS
from moesaic.partitioner.tally import Item
from moesaic.plan_format import Tensor

__all__ = ["Footprint"]


class Footprint:
    """What is held on each device so far: every tensor once, and the caches of attention nodes.

    Args:
        items: The nodes.
        tensors: The tensors of ``weights.bin``, by name.
        kv: Bytes of the cache of each node that has one, by node name.
    """

    def __init__(
        self, items: Iterable[Item], tensors: Mapping[str, Tensor], kv: Mapping[str, int]
    ) -> None:
        self._weights = [_tensors(item, tensors) for item in items]
        self._kv = [kv.get(item.name, 0) for item in items]
        self._held: dict[str, set[str]] = {}

    def copy(self) -> "Footprint":
        """Returns a footprint that holds the same and grows on its own."""
        twin = copy.copy(self)
        twin._held = {device: set(held) for device, held in self._held.items()}
        return twin

    def more(self, indices: Iterable[int], device: str) -> int:
        """Returns the bytes that nodes would add to what a device holds."""
        held = self._held.get(device, set())
        fresh: dict[str, int] = {}
        caches = 0
        for index in indices:
            fresh.update((t.name, t.bytes) for t in self._weights[index] if t.name not in held)
            caches += self._kv[index]
        return sum(fresh.values()) + caches

    def add(self, indices: Iterable[int], device: str) -> int:
        """Puts nodes on a device, and returns the bytes that this adds."""
        indices = list(indices)
        added = self.more(indices, device)
        held = self._held.setdefault(device, set())
        held.update(t.name for index in indices for t in self._weights[index])
        return added

    def record(self, index: int) -> int:
        """Returns the bytes of one expert of an Experts node."""
        return self._weights[index][0].stride


def _tensors(item: Item, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    operator = OPERATORS[item.op]
    arguments = operator.arguments(item.node)
    values = (arguments[name.rstrip("?")] for name in operator.weights)
    return [tensors[str(value.name)] for value in values if value is not None]
