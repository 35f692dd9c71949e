"""In which order nodes move to GPUs: a chain of placements, each with a little more on them.

The order does not depend on budgets, so that more memory only ever means a later link of the same
chain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moesaic.partitioner.assign.footprint import Footprint
from moesaic.partitioner.cost import Seconds
from moesaic.partitioner.tally import Tally

__all__ = ["Move", "Unit", "make_chain"]


@dataclass(frozen=True, slots=True)
class Unit:
    """Nodes that move together.

    Attributes:
        kind: Their placement class: ``embed``, ``dense``, ``experts`` or ``head``.
        layer: Their layer, -1 outside of layers.
        items: Their indices.
        device: The GPU that they may move to.
    """

    kind: str
    layer: int
    items: tuple[int, ...]
    device: str

    def stack(self, tally: Tally) -> int:
        """Returns the index of the Experts node."""
        return next(index for index in self.items if tally.items[index].op == "Experts")


@dataclass(frozen=True, slots=True)
class Move:
    """One link: what moves, what that takes, and the predicted time afterwards.

    Attributes:
        unit: The nodes.
        expert: The one expert that moves, None if all do.
        bytes: Weights and caches that this adds to the device.
        after: Time of the whole model.
    """

    unit: Unit
    expert: int | None
    bytes: int
    after: Seconds


def make_chain(
    units: Sequence[Unit],
    tally: Tally,
    footprint: Footprint,
    *,
    by_expert: bool,
    head_last: bool = False,
) -> list[Move]:
    """Returns the chain; `tally` and `footprint` end where everything has moved.

    The dense part with its caches and the head go first, then experts, and an embedding last: its
    table is large, and a token reads one row of it. Only a table that the head holds anyway goes
    with the dense part. Within each phase, what saves most time a byte goes first.

    Args:
        units: What may move, in the order of the graph.
        tally: The time of where everything is now.
        footprint: What GPUs hold now.
        by_expert: Whether experts move one by one, the most used first.
        head_last: Whether the head goes after the layers, which leave room in smaller pieces.
    """
    embed = [unit for unit in units if unit.kind == "embed"]
    experts = [unit for unit in units if unit.kind == "experts"]
    dense = [unit for unit in units if unit.kind not in ("embed", "experts")]
    late = [unit for unit in dense if head_last and unit.kind == "head"]
    chain = list(_greedy([unit for unit in dense if unit not in late], tally, footprint))
    chain += _greedy(late, tally, footprint)
    if any(footprint.more(unit.items, unit.device) == 0 for unit in embed):
        chain += _greedy(embed, tally, footprint)
        embed = []
    if by_expert:
        chain += _hottest(experts, tally, footprint)
    else:
        chain += _greedy(experts, tally, footprint)
    chain += _greedy(embed, tally, footprint)
    return chain


def _greedy(units: Sequence[Unit], tally: Tally, footprint: Footprint) -> Iterator[Move]:
    """Moves one unit after the other, always the one that saves most time a byte."""
    left = dict.fromkeys(units)
    near = {unit: tally.near(unit.items) for unit in units}
    gains: dict[Unit, float] = {}
    while left:
        for unit in left:
            if unit not in gains:
                size = max(footprint.more(unit.items, unit.device), 1)
                gains[unit] = _gain(unit, tally) / size
        best = max(left, key=gains.__getitem__)  # of equals the first
        del left[best]
        for unit in left:
            if not near[unit].isdisjoint(near[best]):
                del gains[unit]
        tally.move(best.items, best.device)
        yield Move(best, None, footprint.add(best.items, best.device), tally.total)


def _gain(unit: Unit, tally: Tally) -> float:
    before = tally.total
    homes = [(index, tally.where[index]) for index in unit.items]
    tally.move(unit.items, unit.device)
    saved = before.request - tally.total.request
    for index, home in homes:
        tally.where[index] = home
    tally.total = before
    return saved


def _hottest(units: Sequence[Unit], tally: Tally, footprint: Footprint) -> Iterator[Move]:
    """Moves single experts, those that tokens choose most often first."""
    order = []
    for unit in units:
        index = unit.stack(tally)
        touch = tally.items[index].touch
        assert touch is not None
        order += [(-float(odds), unit.layer, expert, unit) for expert, odds in enumerate(touch[0])]
    for _, _, expert, unit in sorted(order, key=lambda one: one[:3]):
        index = unit.stack(tally)
        tally.give(index, expert, unit.device)
        yield Move(unit, expert, footprint.record(index), tally.total)
