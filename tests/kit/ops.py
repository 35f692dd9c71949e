"""Single steps on the CPU, as functions of arrays [rows, width]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesaic.runtime._native import kernels, ops

ISAS: list[str] = kernels.isas()

Weight = tuple[str, int, int, NDArray[np.uint8]]


def vector(values: NDArray[np.floating[Any]] | None) -> Weight | None:
    """A weight vector: float32 padded with zeros to a multiple of 16."""
    if values is None:
        return None
    padded = np.pad(values.astype(np.float32), (0, -len(values) % 16))
    return "f32", len(values), 1, padded.view(np.uint8)


def run(
    op: str,
    attrs: dict[str, Any],
    inputs: Sequence[NDArray[Any]],
    widths: Sequence[int],
    weights: Sequence[Weight | None] = (),
    **options: Any,
) -> list[NDArray[Any]]:
    """Outputs of one step; 1-d inputs have one value a row, floats become float32, ints int32."""
    arrays = [
        np.ascontiguousarray(a.reshape(len(a), -1), np.int32 if a.dtype.kind == "i" else np.float32)
        for a in inputs
    ]
    options = {"isa": ISAS[-1], "max_rows": max(1, *map(len, arrays))} | options
    step = ops.Step(op, attrs, [a.shape[1] for a in arrays], widths, weights=weights, **options)
    return step.run(arrays)
