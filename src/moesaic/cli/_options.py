"""Options that several commands have: one text and one type each."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Context",
    "MinP",
    "ModelPath",
    "RepetitionPenalty",
    "Seed",
    "Temperature",
    "Threads",
    "TopK",
    "TopP",
]

ModelPath = Annotated[
    Path, typer.Argument(help="A plan directory, or a GGUF file, which is partitioned once.")
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopK = Annotated[int | None, typer.Option(help="Keep the k most probable tokens.")]
TopP = Annotated[float | None, typer.Option(help="Keep this much probability.")]
MinP = Annotated[
    float | None, typer.Option(help="Drop what is this much less probable than the best.")
]
RepetitionPenalty = Annotated[float | None, typer.Option(help="1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Fixes the random choices.")]
Threads = Annotated[int | None, typer.Option("--threads", "-t", help="CPU threads.")]
Context = Annotated[
    int | None, typer.Option("--context", help="Tokens of context; lower than a plan's.")
]
