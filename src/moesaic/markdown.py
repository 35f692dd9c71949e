"""Markdown out of foreign text: names of models may hold pipes, tags, line ends, anything."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["one_line", "plain", "table"]

MAX_CHARS = 200

# Punctuation that cannot begin anything inside of a line.
_HARMLESS = frozenset(" -.,:/+()%;?'=\"")
_INSIDE_A_WORD = re.compile(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])")
# What GitHub makes a link of, without being asked.
_LINK = re.compile(r"(https?|ftp|mailto|xmpp):|(www)\.", re.IGNORECASE)


def one_line(text: str) -> str:
    """Returns at most 200 characters of a text, with spaces for what cannot be printed."""
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"


def plain(text: str) -> str:
    """Returns `one_line` of a text so that Markdown shows it as it is.

    ASCII punctuation is escaped by backslashes, as CommonMark allows for all of it.
    """
    line = one_line(text)
    escaped = (c if c.isalnum() or c in _HARMLESS or not c.isascii() else "\\" + c for c in line)
    text = _INSIDE_A_WORD.sub("_", "".join(escaped))
    return _LINK.sub(lambda link: link[0][:-1] + "\\" + link[0][-1], text)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> str:
    """Returns a table with a line end after each row.

    Args:
        columns: Names of the columns; as Markdown, like the cells.
        rows: The cells.
        right: The columns of numbers.
    """
    rule = ["---:" if column in right else "---" for column in columns]
    lines = [columns, rule, *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
