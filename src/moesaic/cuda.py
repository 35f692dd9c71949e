"""Whether plans with CUDA devices can run here: the driver and moesaic's own CUDA library."""

import ctypes
import importlib.util
from pathlib import Path

__all__ = ["cuda_library", "has_driver", "why_not_cuda"]


def has_driver() -> bool:
    """Tells whether this machine has NVIDIA's CUDA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cuda_library() -> Path | None:
    """Returns moesaic's CUDA library, None if this installation has none."""
    found = importlib.util.find_spec("moesaic.runtime")
    folders = map(Path, found.submodule_search_locations or []) if found else []
    files = (folder / "libmoesaic_cuda.so" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def why_not_cuda() -> str | None:
    """Returns what is missing to run on a GPU, None if nothing is."""
    if not has_driver():
        return "this machine has no CUDA driver (libcuda.so.1)"
    if cuda_library() is None:
        return "this installation has no CUDA library (libmoesaic_cuda.so)"
    return None
