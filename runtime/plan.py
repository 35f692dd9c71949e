"""Opens a plan directory for execution: the checks of its files, then of the native program."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import msgspec

from moesaic.errors import PlanError
from moesaic.plan_file import check_weights, file_inside, read_plan, reading
from moesaic.plan_format import PlanFile
from moesaic.runtime import _native

__all__ = ["LoadedPlan", "load_plan"]

MAX_MODEL_BYTES = 256 << 20  # model.onnx keeps its weights outside


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


def load_plan(folder: str | os.PathLike[str]) -> LoadedPlan:
    """Opens a plan for execution.

    Warns (`UserWarning`) if ``model.onnx`` is not the one that the plan was written with: the
    runtime does not use it.

    Args:
        folder: A plan directory.

    Raises:
        PlanError: Something is missing, unreadable, damaged, inconsistent, or of another version.
    """
    folder = Path(folder)
    file = read_plan(folder)
    weights, weights_bytes = check_weights(folder, file)
    _check_model(folder, file)
    try:
        program = _native.Program(msgspec.to_builtins(file), weights_bytes)
    except PlanError as error:
        hint = error.hint or "the plan is damaged: partition the model, or download the plan, again"
        raise PlanError(f"{folder / 'plan.json'}: {error}", hint=hint) from error
    return LoadedPlan(folder, file, program, weights)


def _check_model(folder: Path, file: PlanFile) -> None:
    """Warns if ``model.onnx`` is there and not the plan's."""
    if not (folder / "model.onnx").exists():
        return
    path = file_inside(folder, "model.onnx")
    with reading(path):
        if path.stat().st_size <= MAX_MODEL_BYTES:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == file.model_sha256:
                    return
    warnings.warn(
        f"{path} is not the graph that this plan was written with; the runtime executes plan.json",
        stacklevel=3,
    )
