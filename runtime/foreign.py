"""Strings that remember which of their characters came from outside.

A chat template and the messages put into it end up in one text, and only the template's own part
may stand for special tokens. So every character of a message is *marked*: moved from the basic
plane of Unicode to a plane that has no characters, which no text contains. Marks survive whatever a
template does with a string, even where Python's own code joins or formats it, and `Foreign` makes
its string operations see the plain text. Positions stay the same, as one character stays one.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np

_PLANE = 0xD  # unassigned by Unicode
_MARKED = re.compile("[\U000d0000-\U000dffff]")
_RUNS = re.compile("[\U000d0000-\U000dffff]+|[^\U000d0000-\U000dffff]+")


def is_marked(text: str) -> bool:
    """Tells whether any character of a string is marked."""
    return _MARKED.search(text) is not None


def mark(text: str) -> "Foreign":
    """Returns a text with every character of the basic plane marked; surrogates become U+FFFD."""
    codes = _codes(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return Foreign(_text(np.where(codes >> 16 == 0, codes | (_PLANE << 16), codes)))


def plain(text: str) -> str:
    """Returns a text without marks."""
    if type(text) is str and not is_marked(text):
        return text
    codes = _codes(text)
    return _text(np.where(codes >> 16 == _PLANE, codes & 0xFFFF, codes))


def seal(value: Any) -> Any:
    """Makes marked strings `Foreign`, also those that are items of a list or tuple."""
    if type(value) is str:
        return Foreign(value) if is_marked(value) else value
    if type(value) in (list, tuple):
        return type(value)(seal(v) if type(v) is str else v for v in value)
    return value


def by_runs(text: str, function: Callable[[str], str]) -> "Foreign":
    """Applies a function to each run of marked or unmarked characters; marks stay with runs."""
    runs = ((run, is_marked(run)) for run in _RUNS.findall(text))
    return Foreign("".join([mark(function(plain(r))) if m else function(r) for r, m in runs]))


def _codes(text: str) -> Any:
    return np.frombuffer(str.encode(text, "utf-32-le", "surrogatepass"), np.uint32)


def _text(codes: Any) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")  # type: ignore


def _ask(name: str) -> Callable[..., Any]:
    """A method that asks something of the plain text."""
    method = getattr(str, name)

    def ask(self: str, *args: Any) -> Any:
        return method(plain(self), *(_plain_argument(a) for a in args))

    return ask


def _convert(name: str) -> Callable[..., Any]:
    """A method that converts case."""
    method = getattr(str, name)

    def convert(self: str) -> str:
        return by_runs(self, method)

    return convert


def _plain_argument(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain_argument(v) for v in value)
    return plain(value) if isinstance(value, str) else value


class Foreign(str):
    """A string with marked characters whose operations see the plain text.

    Results keep their marks. What is not defined here works on the marked characters: `format`,
    `%`, `join`, padding and the like, which only put texts together.
    """

    __slots__ = ()

    __contains__ = _ask("__contains__")
    __eq__ = _ask("__eq__")
    __ne__ = _ask("__ne__")
    __lt__ = _ask("__lt__")
    __le__ = _ask("__le__")
    __gt__ = _ask("__gt__")
    __ge__ = _ask("__ge__")
    __hash__ = _ask("__hash__")
    startswith = _ask("startswith")
    endswith = _ask("endswith")
    find = _ask("find")
    rfind = _ask("rfind")
    index = _ask("index")
    rindex = _ask("rindex")
    count = _ask("count")
    isalnum = _ask("isalnum")
    isalpha = _ask("isalpha")
    isascii = _ask("isascii")
    isdecimal = _ask("isdecimal")
    isdigit = _ask("isdigit")
    isidentifier = _ask("isidentifier")
    islower = _ask("islower")
    isnumeric = _ask("isnumeric")
    isprintable = _ask("isprintable")
    isspace = _ask("isspace")
    istitle = _ask("istitle")
    isupper = _ask("isupper")
    lower = _convert("lower")
    upper = _convert("upper")
    title = _convert("title")
    capitalize = _convert("capitalize")
    casefold = _convert("casefold")
    swapcase = _convert("swapcase")

    def __str__(self) -> "Foreign":
        return self

    def __repr__(self) -> str:
        text = repr(plain(self))
        return Foreign(str.join("", (text[0], mark(text[1:-1]), text[0])))

    def __iter__(self) -> Iterator["Foreign"]:
        return map(Foreign, str.__iter__(self))

    def __getitem__(self, key: SupportsIndex | slice) -> "Foreign":
        return Foreign(str.__getitem__(self, key))

    def __add__(self, other: str) -> "Foreign":
        return Foreign(str.__add__(self, other))

    def __radd__(self, other: str) -> "Foreign":
        return Foreign(str.__add__(other, self))

    def __mul__(self, count: SupportsIndex) -> "Foreign":
        return Foreign(str.__mul__(self, count))

    __rmul__ = __mul__

    def strip(self, chars: str | None = None) -> "Foreign":
        """As `str.strip`."""
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> "Foreign":
        """As `str.lstrip`."""
        return self[len(self) - len(plain(self).lstrip(_plain_argument(chars))) :]

    def rstrip(self, chars: str | None = None) -> "Foreign":
        """As `str.rstrip`."""
        return self[: len(plain(self).rstrip(_plain_argument(chars)))]

    def removeprefix(self, prefix: str) -> "Foreign":
        """As `str.removeprefix`."""
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str) -> "Foreign":
        """As `str.removesuffix`."""
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As `str.split`."""
        return self._pieces(plain(self).split(_plain_argument(sep), maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """As `str.rsplit`."""
        return self._pieces(plain(self).rsplit(_plain_argument(sep), maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        """As `str.splitlines`."""
        cut = self._pieces(plain(self).splitlines(keepends=True), "")
        if keepends:
            return cut
        bare = plain(self).splitlines()
        return [line[: len(b)] for line, b in zip(cut, bare, strict=True)]

    def partition(self, sep: str) -> tuple[str, str, str]:
        """As `str.partition`."""
        a, b, _ = plain(self).partition(plain(sep))
        return self[: len(a)], self[len(a) : len(a) + len(b)], self[len(a) + len(b) :]

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        """As `str.rpartition`."""
        a, b, _ = plain(self).rpartition(plain(sep))
        return self[: len(a)], self[len(a) : len(a) + len(b)], self[len(a) + len(b) :]

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "Foreign":
        """As `str.replace`; what is put in keeps the marks that it has."""
        if old:
            return Foreign(str.join(new, self.split(old, count)))
        places = len(self) + 1 if int(count) < 0 else min(int(count), len(self) + 1)
        parts = [
            p for i, c in enumerate([*self, Foreign()]) for p in ((new, c) if i < places else (c,))
        ]
        return Foreign(str.join("", parts))

    def zfill(self, width: SupportsIndex) -> "Foreign":
        """As `str.zfill`."""
        sign = int(plain(self)[:1] in ("+", "-"))
        zeros = "0" * max(0, int(width) - len(self))
        return Foreign(str.join("", (self[:sign], zeros, self[sign:])))

    def join(self, items: Iterable[str]) -> "Foreign":
        """As `str.join`."""
        return Foreign(str.join(self, items))

    def _pieces(self, pieces: list[str], sep: str | None) -> list[str]:
        """Cuts out pieces of the plain text with `sep`, or white space, between them."""
        cut: list[str] = []
        position, text = 0, plain(self)
        for piece in pieces:
            start = text.index(piece, position) if sep is None else position
            cut.append(self[start : start + len(piece)])
            position = start + len(piece) + len(sep or "")
        return cut
