"""Opens what the user named, a plan or a model file, for the commands that run it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import moesaic
from moesaic.cli._render import progress_bar

__all__ = ["open_runtime"]


@contextmanager
def open_runtime(
    model: Path,
    *,
    threads: int | None = None,
    context: int | None = None,
    record_usage: bool = False,
) -> Iterator[moesaic.Runtime]:
    """Yields an open runtime; a bar shows how far a model file is partitioned."""
    with progress_bar("packing") as progress:
        runtime = moesaic.Runtime(
            model, threads=threads, context=context, record_usage=record_usage, progress=progress
        )
    with runtime:
        yield runtime
