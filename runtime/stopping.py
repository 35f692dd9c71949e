"""Cuts a text stream at the first stop string, holding back what may yet become one."""

__all__ = ["StopMatcher"]


class StopMatcher:
    """Feeds on pieces of text and releases what is certain not to be part of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that is safe to show after ``text`` arrived; sets ``stopped`` at a match."""
        self._held += text
        found = [i for i in (self._held.find(stop) for stop in self._stops) if i >= 0]
        if found:
            self.stopped = True
            released, self._held = self._held[: min(found)], ""
            return released
        return self._release(len(self._held) - self._pending())

    def flush(self) -> str:
        """The rest, when no more text comes."""
        return self._release(len(self._held))

    def _pending(self) -> int:
        """Length of the longest suffix that is a proper prefix of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released
