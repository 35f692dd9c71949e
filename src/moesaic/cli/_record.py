"""``--record-usage``: what a command counts is added to a profile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import moesaic
from moesaic.cli._render import err
from moesaic.errors import RequestError
from moesaic.usage_format import add_usage, merged, read_usage

__all__ = ["recording"]


@contextmanager
def recording(runtime: moesaic.Runtime, path: Path | None) -> Iterator[None]:
    """Adds what the block makes the runtime count to the profile at `path`, if there is one.

    A profile that cannot be added to is an error before the block. What was counted until an
    error or an interrupt counts.
    """
    if path is None:
        yield
        return
    if not runtime.usage().experts:
        raise RequestError("this model has no experts", hint="leave out --record-usage")
    if not path.parent.is_dir():
        raise RequestError(f"{path}: No such file or directory", hint="check the path")
    if path.exists():
        merged(read_usage(path), runtime.usage(), path)
    try:
        yield
    finally:
        counted = runtime.usage()
        if counted.tokens:
            total = add_usage(path, counted)
            err.print(
                f"[dim]usage of {counted.tokens} tokens added to {path}, now {total.tokens}[/]"
            )
