"""moesaic: run big Mixture-of-Experts models on small machines.

    plan = moesaic.partition("model.gguf", "plan/")
    with moesaic.Runtime("plan/") as rt:
        print(rt.generate("Once upon a time"))

`Runtime("model.gguf")` partitions into the user's cache folder first, unless that was done before.

The two halves are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from moesaic.errors import (
    DeviceError,
    ModelError,
    MoesaicError,
    PlacementError,
    PlanError,
    RequestError,
)

if TYPE_CHECKING:
    from moesaic.opening import Runtime
    from moesaic.partitioner import Plan, partition

__version__ = "0.1.0"

__all__ = [
    "DeviceError",
    "ModelError",
    "MoesaicError",
    "PlacementError",
    "Plan",
    "PlanError",
    "RequestError",
    "Runtime",
    "__version__",
    "partition",
]

_LAZY = {
    "Plan": "moesaic.partitioner",
    "Runtime": "moesaic.opening",
    "partition": "moesaic.partitioner",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
