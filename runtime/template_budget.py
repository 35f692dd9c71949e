"""What rendering a chat template may cost.

Jinja's sandbox keeps a template from Python's internals, not from filling the memory or running for
ever. Whatever can repeat or grow is paid for here, before it happens where one step could be huge.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined

from moesaic.runtime.foreign import seal

MAX_STEPS = 1 << 20
MAX_CHARS = 1 << 27
MAX_NUMBER = 1 << 20
MAX_BITS = 4096
MAX_SECONDS = 20.0

# Filters that look at the items of a list without writing them out.
_STRUCTURAL = frozenset(
    {"attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last"}
    | {"length", "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse"}
    | {"select", "selectattr", "slice", "sort", "sum", "unique"}
)
_WIDE_FORMAT = re.compile(r"\d{6}")


class BudgetError(Exception):
    """A template exceeds its budget."""


class Budget:
    """What one rendering may still do: steps, characters, time."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._chars = MAX_CHARS
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self, count: int = 1) -> None:
        """Pays for `count` iterations, calls or list items."""
        self._steps -= count
        if self._steps < 0 or time.monotonic() > self._deadline:
            raise BudgetError("it runs for too long")

    def text(self, chars: int) -> None:
        """Pays for characters that come into being."""
        self._chars -= chars
        if self._chars < 0:
            raise BudgetError("it produces too much text")

    def result(self, value: Any) -> Any:
        """Pays for a value and returns it with its marks."""
        self.step()
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, list | tuple):
            self.step(len(value))
            self.text(sum(len(v) for v in value if isinstance(v, str)))
        return seal(value)

    def weight(self, value: Any) -> int:
        """Returns about how many characters a value is when written out, if the budget allows."""
        total, visits, waiting = 0, 0, [value]
        while waiting:
            item = waiting.pop()
            visits += 1
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, Mapping):
                waiting += item.keys()
                waiting += item.values()
            elif isinstance(item, list | tuple | set | frozenset):
                waiting += item
            elif item is not None and not isinstance(item, int | float | range | Undefined):
                raise BudgetError(f"it writes out a {type(item).__name__}")
            total += 8
            if total > self._chars or visits + len(waiting) > MAX_STEPS:
                raise BudgetError("it produces too much text")
        return total

    def output(self, value: Any) -> Any:
        """Pays for writing out what is not a string; returns the value."""
        if not isinstance(value, str):
            self.text(self.weight(value))
        return value

    def method(self, name: str, owner: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Refuses a string method or filter whose result would be too large."""
        values = [*args, *named.values()]
        if any(isinstance(v, int) and abs(v) > MAX_NUMBER for v in values):
            raise BudgetError(f"a number given to {name!r} is too large")
        sizes = [v if isinstance(v, int) else len(v) for v in values if isinstance(v, int | str)]
        largest = max([0, *sizes])
        match name:
            case "replace":
                old = str(args[0]) if args else ""
                self.text((owner.count(old) if old else len(owner) + 1) * largest)
            case "expandtabs":
                self.text(owner.count("\t") * largest)
            case "indent":
                self.text((len(owner.splitlines()) + 1) * largest)
            case "wordwrap":
                self.text(len(owner) * max([0, *(len(v) for v in values if isinstance(v, str))]))
            case "format" | "format_map":
                self.formatting(owner, tuple(values))
            case "encode" | "translate" | "maketrans":
                raise BudgetError(f"{name!r} is not available")

    def filter(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Refuses a filter whose result would be too large; `args` begins with its subject."""
        subject, *rest = args
        if isinstance(subject, str):
            self.method(name, subject, tuple(rest), named)
        elif name not in _STRUCTURAL:
            self.text(self.weight(subject))
        if any(isinstance(v, int) and abs(v) > MAX_NUMBER for v in (*rest, *named.values())):
            raise BudgetError(f"a number given to {name!r} is too large")

    def join(self, separator: str, items: Any) -> list[Any]:
        """Pays for joining items and returns them as a list."""
        kept = list(items)
        self.step(len(kept))
        self.text(sum(map(self.weight, kept)) + len(separator) * len(kept))
        return kept

    def operation(self, operator: str, left: Any, right: Any) -> None:
        """Refuses a binary operation whose result would be too large."""
        if operator == "%" and isinstance(left, str):
            self.formatting(left, right if isinstance(right, tuple) else (right,))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.text(len(left) + len(right))
        elif operator == "*":
            self._product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._bits(left.bit_length() * max(right, 0))

    def formatting(self, template: str, values: tuple[Any, ...]) -> None:
        """Refuses a format string whose result would be too large."""
        if _WIDE_FORMAT.search(template):
            raise BudgetError("a format is too wide")
        if any(isinstance(v, int) and abs(v) > MAX_NUMBER for v in values):
            raise BudgetError("a number in a format is too large")
        fields = template.count("%") + template.count("{")
        widest = max([0, *(v for v in values if isinstance(v, int))])
        self.text(fields * (sum(map(self.weight, values)) + widest) + fields)

    @staticmethod
    def _bits(count: int) -> None:
        if count > MAX_BITS:
            raise BudgetError("it computes too large a number")

    def _product(self, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            self._bits(left.bit_length() + right.bit_length())
            return
        if isinstance(left, int):
            left, right = right, left
        if isinstance(left, str | list | tuple) and isinstance(right, int):
            size = len(left) * max(right, 0)
            if isinstance(left, str):
                self.text(size)
            else:
                self.step(size)
