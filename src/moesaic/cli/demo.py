"""``moesaic demo``: from a GGUF file to text, with the model that ships in the package."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

import moesaic
from moesaic.cli._render import err, errors_as_messages, progress_bar, size
from moesaic.cli.run import last_completion, print_rates
from moesaic.demo import DEMO_MODEL
from moesaic.runtime import Runtime

__all__ = ["demo"]

PROMPT = "It was a fine morning in spring, and"


def demo(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")] = PROMPT,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the plan in this directory.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", help="Tokens to generate at most.")
    ] = 120,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="Fixes the random choices.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
) -> None:
    """Partition the embedded demo model and let it write; no download, no options needed."""
    with errors_as_messages(), tempfile.TemporaryDirectory(prefix="moesaic-demo-") as folder:
        target = output or Path(folder) / "plan"
        err.print(
            f"[dim]partitioning the demo model ({size(DEMO_MODEL.stat().st_size)}) into {target}[/]"
        )
        with progress_bar("packing") as progress:
            moesaic.partition(DEMO_MODEL, target, force=force, progress=progress)
        sampling: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "top_p": 0.95,
        }
        with Runtime(target) as runtime:
            typer.echo(prompt, nl=False)
            print_rates(last_completion(runtime.stream(prompt, **sampling), show=True))
