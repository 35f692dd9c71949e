"""Model files of full size whose weights are holes on the disk: enough to plan, not to pack."""

import importlib
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def synthetic() -> Any:
    """The module that knows the shapes of published models."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("synthetic")
    finally:
        sys.path.remove(str(BENCHMARKS))


def sparse_model(name: str, path: Path) -> Any:
    """Writes the model `name`, with ones in the rope tables, which the planner reads.

    Returns:
        What it is made of: `tensors(model)` yields every name, shape and type.
    """
    module = synthetic()
    model = module.MODELS[name]
    module.write_header(model, path)
    offset = module.padded(path.stat().st_size)
    with path.open("r+b") as file:
        for tensor in model.tensors(model):
            if tensor.name.startswith("rope_factors"):
                ones = np.ones(math.prod(tensor.shape), "<f4")
                file.seek(offset)
                file.write(ones.tobytes())
            offset += module.padded(tensor.bytes)
    os.truncate(path, offset)
    return model
