"""What ``inspect`` finds out about a model file, also of a family that is not supported."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import moesaic
from moesaic.cli._report import plan_summary
from moesaic.errors import ModelError, MoesaicError
from moesaic.partitioner.arch import families
from moesaic.partitioner.gguf import GgufFile, Metadata, TensorInfo, convert_tokenizer
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS
from moesaic.plan_facts import CLASSES
from moesaic.plan_format import PlanFile

__all__ = [
    "Support",
    "by_class",
    "by_type",
    "check_support",
    "class_of",
    "model_summary",
    "tensor_rows",
]

MAX_ITEMS: Final = 1024
"""Elements of an array that ``--json`` shows."""

MAX_CHARS: Final = 1 << 16
"""Characters of a text that ``--json`` shows."""

# Tensors by the names that converters give them; `_exps` are the routed experts of a layer.
_EXPERTS = re.compile(r"blk\.\d+\.(ffn_(gate|up|down|gate_up)(_exps|\.\d+))\.")


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a model file can be partitioned.

    Attributes:
        plan: The plan with default options, None if there is none.
        problem: Why there is none.
        hint: What could be done about it.
        supported: Whether the model itself is supported; it may still not fit this machine.
    """

    plan: PlanFile | None
    problem: str | None
    hint: str | None
    supported: bool


def check_support(gguf: GgufFile) -> Support:
    """Makes the plan that `partition` would make by default, without writing it."""
    try:
        plan = moesaic.partition(gguf.path, dry_run=True).file
        convert_tokenizer(gguf.metadata)
    except ModelError as error:
        return Support(None, str(error), error.hint, supported=False)
    except MoesaicError as error:
        return Support(None, str(error), error.hint, supported=True)
    return Support(plan, None, None, supported=True)


def class_of(name: str) -> str:
    """Returns the placement class of a tensor of a model file, one of `CLASSES`."""
    if _EXPERTS.match(name):
        return "experts"
    if name.startswith(("output.", "output_norm")):
        return "head"
    return "embed" if name.startswith(("token_embd", "position_embd", "token_types")) else "dense"


def by_type(tensors: Iterable[TensorInfo]) -> list[dict[str, Any]]:
    """Sums up tensors by type, the largest first."""
    rows = _summed(tensors, lambda tensor: tensor.type.name)
    codecs = {kind.name: codec for kind, codec in MATRIX_CODECS.items()}
    for row in rows:
        row["codec"] = codecs.get(row["type"])
    return sorted(rows, key=lambda row: -row["bytes"])


def by_class(tensors: Iterable[TensorInfo]) -> list[dict[str, Any]]:
    """Sums up tensors by class and type, in the order of `CLASSES`."""
    rows = _summed(tensors, lambda tensor: class_of(tensor.name), lambda tensor: tensor.type.name)
    return sorted(rows, key=lambda row: (CLASSES.index(row["class"]), -row["bytes"]))


def model_summary(gguf: GgufFile, support: Support) -> dict[str, Any]:
    """Everything for ``--json``; long arrays and texts are cut, their length is told."""
    infos = gguf.tensors.values()
    metadata = gguf.metadata
    plan = support.plan
    return {
        "kind": "model",
        "files": [{"file": name, "bytes": size} for name, size in files(gguf)],
        "version": gguf.version,
        "architecture": metadata.get("general.architecture"),
        "supported": support.supported,
        "problem": support.problem,
        "hint": support.hint,
        "supported_architectures": families(),
        "parameters": sum(map(elements, infos)),
        "tensor_count": len(gguf.tensors),
        "tensor_bytes": sum(info.nbytes for info in infos),
        "expert_bytes": expert_bytes(gguf),
        "types": by_type(infos),
        "classes": by_class(infos),
        "tokenizer": tokenizer_facts(metadata),
        "metadata": {key: _field(metadata, key) for key in metadata},
        "default_plan": plan and _plan(plan),
    }


def tensor_rows(gguf: GgufFile, matches: Callable[[str], bool]) -> list[dict[str, Any]]:
    """The tensor table for ``--json``."""
    return [_tensor(info) for info in gguf.tensors.values() if matches(info.name)]


def tokenizer_facts(metadata: Metadata) -> dict[str, Any]:
    """Kind and size of the tokenizer; None where the file is silent."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    template = metadata.get("tokenizer.chat_template")
    return {
        "model": metadata.get("tokenizer.ggml.model"),
        "pre": metadata.get("tokenizer.ggml.pre"),
        "tokens": len(tokens) if isinstance(tokens, list) else None,
        "chat_template_chars": len(template) if isinstance(template, str) else None,
    }


def files(gguf: GgufFile) -> list[tuple[str, int]]:
    """Returns the names and sizes of the files that make up the model."""
    paths = dict.fromkeys([gguf.path, *(info.path for info in gguf.tensors.values())])
    return [(path.name.encode(errors="replace").decode(), path.stat().st_size) for path in paths]


def expert_bytes(gguf: GgufFile) -> int:
    """Returns the bytes of the routed experts."""
    infos = gguf.tensors.values()
    return sum(info.nbytes for info in infos if class_of(info.name) == "experts")


def elements(info: TensorInfo) -> int:
    """Returns the number of values of a tensor, in exact arithmetic."""
    return int(np.prod(np.array(info.shape, object)))


def _summed(
    tensors: Iterable[TensorInfo], *keys: Callable[[TensorInfo], str]
) -> list[dict[str, Any]]:
    names = ("type",) if len(keys) == 1 else ("class", "type")
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for info in tensors:
        key = tuple(of(info) for of in keys)
        row = sums.setdefault(
            key, {**dict(zip(names, key, strict=True)), "tensors": 0, "parameters": 0, "bytes": 0}
        )
        row["tensors"] += 1
        row["parameters"] += elements(info)
        row["bytes"] += info.nbytes
    return list(sums.values())


def _plan(plan: PlanFile) -> dict[str, Any]:
    """The default plan without what follows from the model file, or is known once written."""
    left_out = ("kind", "format", "version", "uuid", "model_sha256", "source", "placement")
    return {key: value for key, value in plan_summary(plan).items() if key not in left_out}


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "class": class_of(info.name),
        "type": info.type.name,
        "shape": info.shape,
        "file": info.path.name.encode(errors="replace").decode(),
        "offset": info.offset,
        "bytes": info.nbytes,
    }


def _field(metadata: Metadata, key: str) -> dict[str, Any]:
    field = metadata.field(key)
    value = field.value
    entry: dict[str, Any] = {"type": field.type.name.lower()}
    if isinstance(value, str):
        entry["chars"] = len(value)
    elif field.element is not None:
        entry |= {"element": field.element.name.lower(), "length": len(value)}  # type: ignore[arg-type]
    return entry | {"value": bounded(value)}


def bounded(value: Any, items: int = MAX_ITEMS) -> Any:
    """Returns a metadata value as JSON knows it, with at most `items` elements of an array."""
    if isinstance(value, str):
        return value[:MAX_CHARS]
    if isinstance(value, np.ndarray):
        return value[:items].tolist()
    if isinstance(value, list):
        return [bounded(each, items) for each in value[:items]]
    return value
