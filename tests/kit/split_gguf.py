"""Splits a GGUF file into parts, as published models of more than a few gigabytes are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
from gguf import GGUFValueType as T
from kit import tiny_gguf as tiny


def part_path(folder: Path, number: int, count: int, stem: str = "model") -> Path:
    """The path of part `number`, from 1."""
    return folder / f"{stem}-{number:05}-of-{count:05}.gguf"


def split_keys(number: int, count: int, tensors: int) -> dict[str, object]:
    """The keys of part `number`, from 1, with the types that llama.cpp gives them."""
    return {
        "split.no": tiny.typed(T.UINT16, number - 1),
        "split.count": tiny.typed(T.UINT16, count),
        "split.tensors.count": tiny.typed(T.INT32, tensors),
    }


def split(
    source: Path,
    folder: Path,
    sizes: Sequence[int],
    *,
    keys: Mapping[int, Mapping[str, object]] | None = None,
    stem: str = "model",
) -> Path:
    """Writes the parts of `source` to `folder` and returns the path of the first one.

    Part n holds `sizes[n - 1]` tensors; the last one holds the rest. `keys` replaces or adds keys
    of a part, from 1; None leaves one out.
    """
    reader = gguf.GGUFReader(source)
    metadata: dict[str, object] = {
        name: b"".join(p.tobytes() for p in field.parts[2:])
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = [tiny.Tensor(t.name, t.shape[::-1], t.tensor_type, t.data.tobytes())
               for t in reader.tensors]  # fmt: skip
    count, begin = len(sizes) + 1, 0
    for number in range(1, count + 1):
        end = len(tensors) if number == count else begin + sizes[number - 1]
        own: dict[str, Any] = dict(metadata if number == 1 else {})
        own |= split_keys(number, count, len(tensors)) | dict((keys or {}).get(number, {}))
        own = {key: value for key, value in own.items() if value is not None}
        tiny.write(part_path(folder, number, count, stem), own, tensors[begin:end])
        begin = end
    return part_path(folder, 1, count, stem)
