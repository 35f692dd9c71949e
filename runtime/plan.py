"""Opens a plan directory: the checks of its files, then the native program with its own."""

import hashlib
import os
import warnings
from dataclasses import dataclass
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
from moesaic.runtime import _native

__all__ = ["LoadedPlan", "load_plan", "read_plan"]

MAX_JSON_BYTES = 256 << 20
MAX_MODEL_BYTES = 256 << 20  # model.onnx keeps its weights outside

_T = TypeVar("_T")

_AGAIN = "the plan is damaged: partition the model, or download the plan, again"


@dataclass(frozen=True)
class LoadedPlan:
    """A plan that passed every check.

    Attributes:
        folder: The plan directory.
        file: The decoded ``plan.json``.
        program: The same, validated, for the native executor.
        weights: Path of ``weights.bin``.
    """

    folder: Path
    file: PlanFile
    program: _native.Program
    weights: Path


class _Head(msgspec.Struct):
    """The part of ``plan.json`` that every version has."""

    format: str
    version: int


def load_plan(folder: str | os.PathLike[str]) -> LoadedPlan:
    """Opens a plan for execution.

    Warns (`UserWarning`) if ``model.onnx`` is not the one that the plan was written with: the
    runtime does not use it.

    Args:
        folder: A plan directory.

    Raises:
        PlanError: Something is missing, damaged, inconsistent, or of another version.
    """
    folder = Path(folder)
    file = read_plan(folder)
    weights = _inside(folder, "weights.bin")
    weights_bytes = _check_weights(weights, file)
    _check_model(folder, file)
    program = _native.Program(msgspec.to_builtins(file), weights_bytes)
    return LoadedPlan(folder, file, program, weights)


def read_plan(folder: str | os.PathLike[str]) -> PlanFile:
    """Decodes ``plan.json`` strictly and checks its version and uuid.

    Raises:
        PlanError: It is missing or malformed. Its numbers are checked by `load_plan` only.
    """
    path = _inside(Path(folder), "plan.json")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise PlanError(f"{path}: expected at most {MAX_JSON_BYTES} bytes", hint=_AGAIN)
    data = path.read_bytes()
    head = _decode(path, data, _Head)
    if head.format != FORMAT:
        raise PlanError(f"{path}: format: expected `{FORMAT}`, got `{head.format}`")
    if head.version != VERSION:
        raise PlanError(
            f"{path}: version: this runtime reads {VERSION}, got {head.version}",
            hint="partition the model again with this version of moesaic",
        )
    file = _decode(path, data, PlanFile)
    expected = plan_uuid(tensor_list_digest(file.tensors))
    if _uuid(path, file.uuid) != expected:
        raise PlanError(f"{path}: uuid: expected {expected}, got {file.uuid}", hint=_AGAIN)
    return file


def _decode(path: Path, data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError says where
        raise PlanError(f"{path}: {error}", hint=_AGAIN) from None


def _uuid(path: Path, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise PlanError(f"{path}: uuid: `{text}` is not one", hint=_AGAIN) from None


def _inside(folder: Path, name: str) -> Path:
    """Returns the path of a regular file that lies in the folder, not merely is linked from it."""
    path = folder / name
    if not folder.is_dir():
        raise PlanError(f"{folder} is not a directory", hint="pass a plan made by `partition`")
    if not path.exists():
        raise PlanError(f"{path} is missing", hint="pass a plan made by `partition`")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PlanError(
            f"{path} is a symbolic link that leaves the plan directory",
            hint="copy the plan with links followed; from the Hugging Face Hub, download it with "
            "local_dir=",
        )
    if not path.is_file():
        raise PlanError(f"{path} is not a regular file")
    return path


def _check_weights(path: Path, file: PlanFile) -> int:
    """Checks the header and the size of ``weights.bin``; returns its size in bytes."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        header = stream.read(WEIGHTS_HEADER_BYTES)
    if len(header) < WEIGHTS_HEADER_BYTES or not header.startswith(WEIGHTS_MAGIC):
        raise PlanError(f"{path} is not a weights file", hint=_AGAIN)
    version, written = (
        int.from_bytes(header[8:12], "little"),
        int.from_bytes(header[48:56], "little"),
    )
    if version != VERSION:
        raise PlanError(
            f"{path}: version: this runtime reads {VERSION}, got {version}",
            hint="partition the model again with this version of moesaic",
        )
    if written != size:
        raise PlanError(f"{path}: expected {written} bytes, got {size}", hint=_AGAIN)
    if header[16:32] != UUID(file.uuid).bytes:
        raise PlanError(
            f"{path}: uuid: expected the plan's {file.uuid}, got {UUID(bytes=header[16:32])}",
            hint="plan.json and weights.bin come from different plans",
        )
    if header != weights_header(file.tensors, size):
        raise PlanError(f"{path}: the header does not fit the plan's tensors", hint=_AGAIN)
    return size


def _check_model(folder: Path, file: PlanFile) -> None:
    """Warns if ``model.onnx`` is there and not the plan's."""
    if not (folder / "model.onnx").exists():
        return
    path = _inside(folder, "model.onnx")
    if path.stat().st_size <= MAX_MODEL_BYTES:
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == file.model_sha256:
                return
    warnings.warn(
        f"{path} is not the graph that this plan was written with; the runtime executes plan.json",
        stacklevel=3,
    )
