"""What the cache keeps of a conversation's last turn, so that the next one need not run it again.

On the CPU results do not depend on it: a token's row is the same however its sequence came about.
"""

from collections.abc import Sequence
from itertools import takewhile
from operator import eq

from moesaic.errors import RequestError
from moesaic.runtime import _native

__all__ = ["Prefix"]


class Prefix:
    """Sequences that stay in the cache for a later request that begins with the same tokens.

    They are the end of the last request, which is trimmed to what the next one has in common with
    it, and with `windowed` the end of its prompt too: pages that a sliding window has left do not
    come back by trimming, and chat templates leave earlier thoughts out. Only the scheduler, which
    gives kept sequences up when it needs them, calls the methods.

    Args:
        windowed: Whether the model has sliding windows.
    """

    def __init__(self, *, windowed: bool) -> None:
        self.windowed = windowed
        self._held: list[tuple[int, list[int]]] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, sequence: int, tokens: list[int]) -> None:
        """Keep a sequence of the executor, which holds these tokens."""
        self._held.append((sequence, tokens))

    def take(
        self, executor: _native.Executor, prompt: Sequence[int], *, extended: bool
    ) -> tuple[int, int] | None:
        """Give up all sequences but the one that shares most with a prompt.

        Args:
            executor: Whose sequences they are.
            prompt: Token ids.
            extended: Whether the prompt is rotated with the model's second tables.

        Returns:
            The sequence, trimmed to n tokens of the prompt, and n; None if none will do.
        """
        shared = [(_shared(tokens, prompt), sequence) for sequence, tokens in self._held]
        self._held.clear()
        found = None
        for length, sequence in sorted(shared, reverse=True):
            fits = length > 0 and executor.sequence_extended(sequence) == extended
            if found is None and fits and _trim(executor, sequence, length):
                found = sequence, length
            else:
                executor.free_sequence(sequence)
        return found

    def free(self, executor: _native.Executor) -> None:
        """Give up all sequences."""
        for sequence, _ in self._held:
            executor.free_sequence(sequence)
        self._held.clear()


def _shared(tokens: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens both begin with; the prompt's last one is always run, for its logits."""
    same = sum(1 for _ in takewhile(bool, map(eq, tokens, prompt)))
    return min(same, len(prompt) - 1)


def _trim(executor: _native.Executor, sequence: int, length: int) -> bool:
    try:
        executor.trim_sequence(sequence, length)
    except RequestError:  # a window has moved on
        return False
    return True
