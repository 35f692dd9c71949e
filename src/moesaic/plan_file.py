"""Reads the files of a plan directory, with the checks that need no knowledge of operators.

Both halves open plans with it: the runtime to execute them, the partitioner to place them anew.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from moesaic.errors import PlanError
from moesaic.plan_format import (
    FORMAT,
    VERSION,
    WEIGHTS_HEADER_BYTES,
    WEIGHTS_MAGIC,
    PlanFile,
    plan_uuid,
    tensor_list_digest,
    weights_header,
)

__all__ = ["check_weights", "file_inside", "read_plan", "reading"]

MAX_JSON_BYTES = 256 << 20

_T = TypeVar("_T")

_AGAIN = "the plan is damaged: partition the model, or download the plan, again"
_OTHER_VERSION = "partition the model again with this version of moesaic"


class _Head(msgspec.Struct):
    """The part of ``plan.json`` that every version has."""

    format: str
    version: int


def read_plan(folder: str | os.PathLike[str]) -> PlanFile:
    """Decodes ``plan.json`` strictly and checks its version and uuid.

    Raises:
        PlanError: It is missing, unreadable or malformed. Its numbers are not checked.
    """
    path = file_inside(Path(folder), "plan.json")
    with reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise PlanError(f"{path}: expected at most {MAX_JSON_BYTES} bytes", hint=_AGAIN)
        data = path.read_bytes()
    head = _decode(path, data, _Head)
    if head.format != FORMAT:
        raise PlanError(f"{path}: format: expected `{FORMAT}`, got `{head.format}`", hint=_AGAIN)
    _check_version(path, head.version)
    file = _decode(path, data, PlanFile)
    expected = plan_uuid(tensor_list_digest(file.tensors))
    if _uuid(path, file.uuid) != expected:
        raise PlanError(f"{path}: uuid: expected {expected}, got {file.uuid}", hint=_AGAIN)
    return file


def check_weights(folder: Path, file: PlanFile) -> tuple[Path, int]:
    """Checks the header and the size of ``weights.bin``; returns its path and its size in bytes.

    Raises:
        PlanError: It is missing, unreadable, incomplete, or belongs to another plan.
    """
    path = file_inside(folder, "weights.bin")
    with reading(path), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        header = stream.read(WEIGHTS_HEADER_BYTES)
    if len(header) < WEIGHTS_HEADER_BYTES or not header.startswith(WEIGHTS_MAGIC):
        raise PlanError(f"{path} is not a weights file", hint=_AGAIN)
    _check_version(path, int.from_bytes(header[8:12], "little"))
    written = int.from_bytes(header[48:56], "little")
    if written != size:
        raise PlanError(f"{path}: expected {written} bytes, got {size}", hint=_AGAIN)
    if header[16:32] != UUID(file.uuid).bytes:
        raise PlanError(
            f"{path}: uuid: expected the plan's {file.uuid}, got {UUID(bytes=header[16:32])}",
            hint="plan.json and weights.bin come from different plans",
        )
    if header != weights_header(file.tensors, size):
        raise PlanError(f"{path}: the header does not fit the plan's tensors", hint=_AGAIN)
    return path, size


def file_inside(folder: Path, name: str) -> Path:
    """Returns the path of a regular file that lies in the folder, not merely is linked from it.

    Raises:
        PlanError: There is no such file.
    """
    path = folder / name
    with reading(path):
        if not folder.is_dir():
            raise PlanError(f"{folder} is not a directory", hint="pass a plan made by `partition`")
        if not path.exists():
            raise PlanError(f"{path} is missing", hint="pass a plan made by `partition`")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise PlanError(
                f"{path} is a symbolic link that leaves the plan directory",
                hint="copy the plan with links followed; from the Hugging Face Hub, download it "
                "with local_dir=",
            )
        if not path.is_file():
            raise PlanError(f"{path} is not a regular file", hint=_AGAIN)
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into a `PlanError` about `path`."""
    try:
        yield
    except OSError as error:
        raise PlanError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def _decode(path: Path, data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"{path}: {error}", hint=_AGAIN) from None


def _check_version(path: Path, version: int) -> None:
    if version != VERSION:
        raise PlanError(f"{path}: version: expected {VERSION}, got {version}", hint=_OTHER_VERSION)


def _uuid(path: Path, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise PlanError(f"{path}: uuid: `{text}` is not one", hint=_AGAIN) from None
