"""``moesaic models``: the plans made from model files that were opened directly."""

import re
import sys
import time
from typing import Annotated

import typer

from moesaic.cli._render import err, errors_as_messages, out, print_json, print_table, size
from moesaic.errors import PlanError
from moesaic.plan_cache import Entry, entries, find, plans_folder, remove

__all__ = ["models"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

models = typer.Typer(
    help="List and remove the plans that were made when model files were opened directly.",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
)

_Json = Annotated[bool, typer.Option("--json", help="Print the list as JSON.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


@models.callback()
def _models(context: typer.Context, *, as_json: _Json = False) -> None:
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)


@models.command("list")
def list_models(*, as_json: _Json = False) -> None:
    """List the cached plans, last used first; so does `moesaic models` alone."""
    with errors_as_messages():
        found = entries()
        if as_json:
            print_json([_as_json(entry) for entry in found])
        elif not found:
            err.print(f"no plans in {plans_folder()}", markup=False)
        else:
            columns = ("Model", "Architecture", "Size", "Last used", "Key", "Source")
            print_table(f"Plans in {plans_folder()}", columns, map(_row, found))
            out.print(f"{size(sum(entry.bytes for entry in found))} in all", markup=False)


@models.command("remove")
def remove_models(
    names: Annotated[
        list[str],
        typer.Argument(help="Keys or their beginnings, model names, or model files."),
    ],
    *,
    yes: _Yes = False,
) -> None:
    """Remove some cached plans. The model files stay."""
    with errors_as_messages():
        _remove(find(names), yes=yes)


@models.command("prune")
def prune(
    names: Annotated[
        list[str] | None, typer.Argument(help="Look only at these; default all.")
    ] = None,
    *,
    older_than: Annotated[
        str, typer.Option(help="Remove what was not used for this long: 12h, 30d, 4w.")
    ] = "30d",
    everything: Annotated[bool, typer.Option("--all", help="Remove what is newer too.")] = False,
    yes: _Yes = False,
) -> None:
    """Remove cached plans that were not used for long, and unfinished ones."""
    with errors_as_messages():
        limit = time.time() - _duration(older_than)
        candidates = find(names) if names else entries()
        old = [e for e in candidates if everything or e.last_used < limit or e.record is None]
        free = [entry for entry in old if not entry.in_use]
        for entry in old:
            if entry not in free:
                err.print(f"{_name(entry)} is in use and stays", markup=False)
        _remove(free, yes=yes)


def _remove(chosen: list[Entry], *, yes: bool) -> None:
    if not chosen:
        err.print("nothing to remove")
        return
    for entry in chosen:
        err.print(f"{_name(entry)}  {size(entry.bytes)}  {entry.folder}", markup=False)
    if not yes:
        _ask(len(chosen))
    for entry in chosen:
        remove(entry)
    err.print(f"removed {size(sum(entry.bytes for entry in chosen))}")


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise PlanError("nobody is here to be asked", hint="add --yes to remove them")
    if not typer.confirm(f"Remove {count} plan{'s' * (count != 1)}?", err=True):
        raise typer.Exit(1)


def _duration(text: str) -> float:
    """Returns the seconds of ``12h`` or ``30d``."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*([smhdw])", text.strip())
    if match is None:
        raise PlanError(
            f"--older-than: {text!r} is not a duration", hint="write one like 12h, 30d or 4w"
        )
    return float(match[1]) * _SECONDS[match[2]]


def _name(entry: Entry) -> str:
    return entry.record.name if entry.record else "(unfinished)"


def _row(entry: Entry) -> tuple[str, ...]:
    source = entry.source.name if entry.source else ""
    gone = " (gone)" if entry.source and not entry.source.exists() else ""
    return (
        _name(entry),
        entry.record.architecture if entry.record else "",
        size(entry.bytes),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used)),
        entry.key[:12],
        source + gone,
    )


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "name": entry.record.name if entry.record else None,
        "architecture": entry.record.architecture if entry.record else None,
        "bytes": entry.bytes,
        "last_used": entry.last_used,
        "folder": str(entry.folder),
        "source": str(entry.source) if entry.source else None,
        "source_exists": entry.source is not None and entry.source.exists(),
        "complete": entry.record is not None and entry.folder.is_dir(),
        "in_use": entry.in_use,
    }
