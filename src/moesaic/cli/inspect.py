"""``moesaic inspect``: what a plan holds and where its nodes run."""

from pathlib import Path
from typing import Annotated

import typer

from moesaic.cli._render import errors_as_messages, print_json
from moesaic.cli._report import plan_summary, print_plan
from moesaic.plan_file import read_plan

__all__ = ["inspect"]


def inspect(
    plan: Annotated[Path, typer.Argument(help="A plan directory.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show model facts, memory per device and placement of a plan."""
    with errors_as_messages():
        file = read_plan(plan)
        if as_json:
            print_json(plan_summary(file))
        else:
            print_plan(file)
