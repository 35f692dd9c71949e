"""Finds how far along a chain of moves the devices' memory reaches."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from moesaic.partitioner.assign.chain import Move
from moesaic.partitioner.cost import Seconds

__all__ = ["Option", "improving", "last_that_fit", "options"]

_TRY_EACH = 32
"""Up to so many options are tried one by one; of more, in strides of half of what is over."""


@dataclass(frozen=True, slots=True)
class Option:
    """The first `count` moves of a chain, the bytes they take, and the time after the last."""

    chain: Sequence[Move]
    count: int
    bytes: int
    after: Seconds

    @property
    def moves(self) -> Sequence[Move]:
        """The moves."""
        return self.chain[: self.count]


Measure = Callable[[Mapping[str, Option]], Mapping[str, int]]


def options(chain: Sequence[Move], start: Seconds) -> list[Option]:
    """Returns every way to stop on a chain, from no move on."""
    found = [Option(chain, 0, 0, start)]
    for count, move in enumerate(chain, 1):
        found.append(Option(chain, count, found[-1].bytes + move.bytes, move.after))
    return found


def improving(every: Iterable[Option]) -> list[Option]:
    """Returns those that are at least as fast as whatever takes less memory.

    No budget has a part in it, so that a larger one never predicts slower decoding or a slower
    request. A prompt alone may be slower: what speeds up decoding most may leave it less memory.
    """
    first, *rest = sorted(every, key=lambda option: (option.bytes, option.after.request))
    chosen = [first]
    for option in rest:
        if option.after.no_worse(chosen[-1].after):
            chosen.append(option)
    return chosen


def last_that_fit(
    choices: Mapping[str, Sequence[Option]],
    budgets: Mapping[str, int | None],
    fixed: Mapping[str, int],
    measure: Measure,
) -> dict[str, Option]:
    """Returns what to move to each GPU: the last options that fit, or the first if none does.

    Args:
        choices: The options of each GPU, by the bytes they take.
        budgets: Bytes that each GPU may use, None without a limit.
        fixed: Bytes that are needed there at least, whatever moves.
        measure: Bytes that each device then needs, exactly; called a few times.
    """
    at = {}
    for name, allowed in choices.items():
        limit = budgets[name]
        needs = [fixed[name] + option.bytes for option in allowed]
        at[name] = len(allowed) - 1 if limit is None else max(bisect_right(needs, limit) - 1, 0)
    while True:
        taken = {name: choices[name][index] for name, index in at.items()}
        measured = measure(taken)
        over = {
            name: measured[name] - limit
            for name, limit in budgets.items()
            if limit is not None and measured.get(name, 0) > limit and at[name] > 0
        }
        if not over:
            return taken
        for name, excess in over.items():
            at[name] = _step_back(at[name], choices[name], excess)


def _step_back(at: int, allowed: Sequence[Option], excess: int) -> int:
    target = allowed[at].bytes - excess // 2
    at -= 1
    while at > 0 and len(allowed) > _TRY_EACH and allowed[at].bytes > target:
        at -= 1
    return at
