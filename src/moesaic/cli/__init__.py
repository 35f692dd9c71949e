"""The command line: one module a command."""

from typing import Annotated

import typer

from moesaic import __version__
from moesaic.cli._render import write_any_text
from moesaic.cli.card import card
from moesaic.cli.chat import chat
from moesaic.cli.demo import demo
from moesaic.cli.doctor import doctor
from moesaic.cli.inspect import inspect
from moesaic.cli.models import models
from moesaic.cli.partition import partition
from moesaic.cli.run import run

__all__ = ["main"]

app = typer.Typer(
    name="moesaic",
    help="Run big Mixture-of-Experts models: partition a GGUF file, then run the plan.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (partition, run, chat, inspect, card, demo, doctor):
    app.command()(command)
app.add_typer(models, name="models")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"moesaic {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Run big Mixture-of-Experts models: partition a GGUF file, then run the plan."""


def main() -> None:
    """Entry point of the ``moesaic`` script."""
    write_any_text()
    app()
