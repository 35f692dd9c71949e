"""The schema of a usage profile: how often each expert of a model was chosen.

``moesaic run --record-usage`` writes it, ``moesaic partition --usage`` reads it. This module
imports neither of the two halves.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from moesaic.errors import PlanError
from moesaic.replace import replace_files
from moesaic.small_file import read_small

__all__ = ["FORMAT", "VERSION", "Usage", "add_usage", "merged", "read_usage", "write_usage"]

FORMAT = "moesaic-usage"
VERSION = 1
MAX_BYTES = 64 << 20


class Usage(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What was counted.

    Attributes:
        format: `FORMAT`.
        version: `VERSION`.
        architecture: The model's family, for the error when a profile of another model is given.
        tokens: Tokens that went through the model.
        experts: By the name of each Experts node, how many tokens chose expert 0, 1, ...
        uuid: The plan's, which names its weights, or empty. Another quantisation of the same model
            has another, but its experts are the same ones.
    """

    format: str
    version: int
    architecture: str
    tokens: int
    experts: dict[str, list[int]]
    uuid: str = ""


def read_usage(path: Path) -> Usage:
    """Reads a profile, or raises a `PlanError` that names the file and what is wrong with it."""
    try:
        usage = msgspec.json.decode(read_small(path, MAX_BYTES), type=Usage)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}", hint="check the path") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(
            f"{path}: not a usage profile: {error}",
            hint="record one with `moesaic run PLAN --record-usage usage.json`",
        ) from None
    if (usage.format, usage.version) != (FORMAT, VERSION):
        raise PlanError(
            f"{path}: is {usage.format!r} version {usage.version}, expected {FORMAT!r} {VERSION}",
            hint="record it again with this version of moesaic",
        )
    if usage.tokens < 1 or any(min(row, default=-1) < 0 for row in usage.experts.values()):
        raise PlanError(f"{path}: counts must not be negative or missing", hint="record it again")
    return usage


def write_usage(path: Path, usage: Usage) -> None:
    """Writes a profile, atomically: a file that is there is replaced or left as it is.

    Raises:
        PlanError: It cannot be written, or nothing was counted.
    """
    if usage.tokens < 1:
        raise PlanError(f"{path}: no token was counted", hint="run the model first")
    with _writing(path):
        replace_files({path: msgspec.json.encode(usage) + b"\n"})


def add_usage(path: Path, usage: Usage) -> Usage:
    """Adds to the profile at `path`, which may not exist yet, and returns the sum.

    Processes that add to profiles of one folder take turns, where its file system has locks.

    Raises:
        PlanError: The file cannot be read or written, or is of another model.
    """
    with _writing(path), _locked(path.parent):
        if path.exists():
            usage = merged(read_usage(path), usage, path)
        write_usage(path, usage)
    return usage


def merged(old: Usage, new: Usage, path: Path) -> Usage:
    """Returns the sum of two profiles of one model; `path` is where the old one is from.

    Raises:
        PlanError: They are of different models.
    """
    if _model(old) != _model(new) or ("" not in (old.uuid, new.uuid) and old.uuid != new.uuid):
        raise PlanError(
            f"{path} is the usage of another model ({_described(old)}; here {_described(new)})",
            hint="record to another file",
        )
    rows = {
        node: [a + b for a, b in zip(row, new.experts[node], strict=True)]
        for node, row in old.experts.items()
    }
    tokens = old.tokens + new.tokens
    return msgspec.structs.replace(old, tokens=tokens, experts=rows, uuid=old.uuid or new.uuid)


def _model(usage: Usage) -> tuple[str, dict[str, int]]:
    return usage.architecture, {node: len(row) for node, row in usage.experts.items()}


def _described(usage: Usage) -> str:
    return (
        f"{usage.architecture}, {len(usage.experts)} layers of experts, {usage.uuid or 'no uuid'}"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlanError(
            f"{path}: cannot be written: {error.strerror}",
            hint="check the path and its permissions",
        ) from error
