"""Runs a plan's program without kernels: the native checks and the executor over null providers."""

from pathlib import Path

import msgspec
import numpy as np

from moesaic.plan_format import WEIGHTS_HEADER_BYTES, PlanFile
from moesaic.runtime import _native


def program(plan: PlanFile) -> _native.Program:
    """The validated native program; every number of the plan has been checked."""
    return _native.Program(msgspec.to_builtins(plan), weights_bytes(plan))


def weights_bytes(plan: PlanFile) -> int:
    """The size of the plan's `weights.bin`."""
    ends = [tensor.offset + tensor.bytes for tensor in plan.tensors]
    return max(ends, default=WEIGHTS_HEADER_BYTES)


def executor(plan: PlanFile, folder: Path, *, null_provider: bool) -> _native.Executor:
    """An executor over weights that are zero; their file is made in `folder`."""
    weights = folder / "weights.bin"
    with weights.open("wb") as file:
        file.truncate(weights_bytes(plan))
    return _native.Executor(program(plan), str(weights), threads=1, null_provider=null_provider)


def null_run(plan: PlanFile, folder: Path) -> np.ndarray:
    """Runs one step of three tokens without kernels; returns the logits, which are zero."""
    null = executor(plan, folder, null_provider=True)
    sequence = null.create_sequence()
    tokens, wanted = np.zeros(3, np.int32), np.array([2], np.int32)
    logits: np.ndarray = null.step(tokens, np.full(3, sequence, np.int32), wanted)
    return logits
