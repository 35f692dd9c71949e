"""Copies of a GGUF file with some keys or tensors changed, added or left out."""

from collections.abc import Mapping
from pathlib import Path

import gguf
from kit import tiny_gguf
from kit.tiny_gguf import Tensor


def edited(
    source: Path,
    target: Path,
    keys: Mapping[str, object] | None = None,
    tensors: Mapping[str, Tensor | None] | None = None,
) -> Path:
    """Writes a copy of `source` to `target` and returns `target`.

    `keys` and `tensors` replace entries by name or add them; None leaves one out.
    """
    reader = gguf.GGUFReader(source)
    all_keys: dict[str, object] = {
        name: b"".join(part.tobytes() for part in field.parts[2:])
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    all_tensors: dict[str, Tensor | None] = {t.name: _tensor(t) for t in reader.tensors}
    all_keys |= dict(keys or {})
    all_tensors |= dict(tensors or {})
    return tiny_gguf.write(
        target,
        {name: value for name, value in all_keys.items() if value is not None},
        [tensor for tensor in all_tensors.values() if tensor is not None],
    )


def _tensor(t: gguf.ReaderTensor) -> Tensor:
    shape = [int(n) for n in t.shape][::-1]
    return Tensor(t.name, shape, t.tensor_type, t.data.tobytes())
