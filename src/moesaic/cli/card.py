"""``moesaic card``: the model card of a plan."""

from pathlib import Path
from typing import Annotated

import typer

from moesaic.cli._render import errors_as_messages, note

__all__ = ["card"]


def card(
    plan: Annotated[Path, typer.Argument(help="A plan directory.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a card that was edited.")] = False,
) -> None:
    """Write a plan's README.md, a model card as the Hugging Face Hub reads it."""
    with errors_as_messages():
        from moesaic.partitioner.plan.card import write_card

        note(f"wrote {write_card(plan, force=force)}")
