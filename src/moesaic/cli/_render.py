"""How the command line speaks: data on stdout, everything else on stderr, errors with a hint."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from moesaic.errors import MoesaicError
from moesaic.units import share, size, thousands

__all__ = [
    "err",
    "errors_as_messages",
    "note",
    "out",
    "print_facts",
    "print_json",
    "print_table",
    "progress_bar",
    "safe",
    "share",
    "size",
    "tame",
    "thousands",
    "write_any_text",
]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

# ASCII's controls but line feed and tab, those of Latin-1, and what changes the direction of text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# What is not a terminal has no width that a table would have to fit.
_ANY_WIDTH = 1000
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else _ANY_WIDTH)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def write_any_text() -> None:
    """Lets stdout replace characters that its encoding lacks, rather than fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def tame(text: str) -> str:
    """Text that is not ours, safe for a terminal: control characters become visible ones.

    Line feeds and tabs stay.
    """
    return _CONTROLS.sub(lambda match: _picture(ord(match[0])), text)


def _picture(code: int) -> str:
    """The Unicode picture of a control character of ASCII, U+FFFD for the others."""
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def safe(text: str) -> str:
    r"""Makes foreign text harmless to a terminal, and one line of it.

    Model files and plans hold names that anybody may have written. Control characters, which could
    move the cursor or change the window, and marks that reorder text are spelled out: ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what a terminal might obey is escaped in it."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(_UNSAFE.sub(_as_json_escape, text) + "\n")


# All that is not ASCII is looked at, and most of it let through.
_UNSAFE = re.compile(r"[^\n\x20-\x7e]")


def _as_json_escape(match: re.Match[str]) -> str:
    character = match.group()
    return character if character.isprintable() else json.dumps(character)[1:-1]


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Sequence[str] = (),
) -> None:
    """A table on stdout; one that is wider than the terminal lies on its side if that is narrower.

    Args:
        title: Printed above it.
        columns: Names of the columns.
        rows: The cells; foreign text in them is made safe.
        left: Columns of text, aligned to the left as the first one is; numbers go to the right.
    """
    rows = list(rows)
    table = _table(title, columns, rows, left)
    if _width(table) > out.width and len(rows) < len(columns):
        head, *others = zip(columns, *rows, strict=True)
        table = _table(title, head, others, ())
    out.print(table)


def _table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str]
) -> Table:
    table = Table(
        title=Text(safe(title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD
    )
    for i, column in enumerate(columns):
        is_text = i == 0 or column in left
        table.add_column(
            Text(safe(column)),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold" if is_text else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    return table


def _width(table: Table) -> int:
    """The columns that a table takes where nothing is folded."""
    return out.measure(table, options=out.options.update(width=_ANY_WIDTH)).maximum


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Lines of a name and a value on stdout; facts without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts:
        if value:
            grid.add_row(name, Text(safe(value)))
    out.print(grid)
    out.print()


def note(text: str) -> None:
    """A remark on stderr."""
    err.print(Text(safe(text), style="dim"))


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turns the package's exceptions into a message, a hint and an exit code."""
    try:
        yield
        sys.stdout.flush()  # a full disk is noticed here at the latest
    except MoesaicError as error:
        _print_error(error, error.hint)
        raise typer.Exit(EXIT_FAILED) from None
    except BrokenPipeError:
        raise  # typer's: the reader has seen enough
    except OSError as error:
        _print_error(error, None)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _print_error(error: Exception, hint: str | None) -> None:
    err.print(Text.assemble(("error:", "bold red"), " ", safe(str(error))))
    if hint:
        err.print(Text.assemble("\n", ("hint:", "bold cyan"), " ", safe(hint)))


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with speed and remaining time; the callback takes bytes done and in all."""
    columns = (
        TextColumn(label),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    task = progress.add_task(label, total=None)

    def update(done: int, total: int) -> None:
        progress.start()  # at the first call, for often there is nothing to do
        progress.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        progress.stop()
