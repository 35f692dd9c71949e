"""Model families. The file `<general.architecture>.py` builds that family, with `_` for `-`."""

import importlib
import pkgutil

from moesaic.partitioner.arch._builder import PLACEMENT_KEY, Builder, Model
from moesaic.partitioner.gguf import GgufFile

__all__ = ["PLACEMENT_KEY", "Model", "build_model", "families"]


def families() -> list[str]:
    """Returns the names of the supported architectures, as `general.architecture` spells them."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))


def build_model(gguf: GgufFile, kv_type: str = "f16") -> Model:
    """Builds the graph of a model file.

    Args:
        gguf: The model.
        kv_type: Element type of the caches.

    Raises:
        ModelError: The family is unknown, or a key or a tensor is missing, wrong, or unexpected.
    """
    name = gguf.architecture
    module = name.replace("-", "_")
    if module.replace("_", "-") not in families() or module.startswith("_"):
        gguf.metadata.fail(
            "general.architecture",
            f"{name!r} is not supported",
            hint="supported are " + ", ".join(families()),
        )
    family = importlib.import_module(f"{__name__}.{module}")
    model: Model = family.build(Builder(gguf, kv_type))
    return model
