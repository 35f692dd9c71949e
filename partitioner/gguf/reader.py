"""Opens GGUF models, of one file or of several.

A model that opens is safe to read: its files and their metadata and tensor tables were checked.
Truncating a file while it is open is not survived.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.partitioner.gguf.part import Part, TensorInfo, read_part
from moesaic.partitioner.gguf.split import read_split

SAMPLE_BYTES = 4096

_PLAIN: dict[object, np.dtype[Any]] = {
    GGMLQuantizationType.F64: np.dtype("<f8"),
    GGMLQuantizationType.I8: np.dtype("<i1"),
    GGMLQuantizationType.I16: np.dtype("<i2"),
    GGMLQuantizationType.I32: np.dtype("<i4"),
    GGMLQuantizationType.I64: np.dtype("<i8"),
}


class GgufFile:
    """An open, validated GGUF model. Its files stay mapped while this or a `data` view lives.

    Attributes:
        path: The file that was opened, the first one of a split model.
        files: All files of the model, in order.
        version: Version of the format, 2 or 3.
        metadata: Every metadata key.
        tensors: The tensor table by name, in file order.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        first = parts[0]
        self.path, self.version, self.metadata = first.path, first.version, first.metadata
        self.files = [part.path for part in parts]
        self.tensors = {name: info for part in parts for name, info in part.tensors.items()}
        self._maps = {part.path: part.map for part in parts}

    @property
    def nbytes(self) -> int:
        """Size of all files in bytes."""
        return sum(map(len, self._maps.values()))

    @property
    def architecture(self) -> str:
        """The value of `general.architecture`: lower-case letters, digits, `-`, `_` and `.`."""
        name = self.metadata.str("general.architecture")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            self.metadata.fail("general.architecture", f"{name[:80]!r} is not an architecture name")
        return name

    @property
    def hyper(self) -> Metadata:
        """The keys of the model's own architecture: `x` stands for `<architecture>.x`."""
        return self.metadata.scoped(self.architecture)

    def tensor(self, name: str) -> TensorInfo:
        """Returns the entry of `name`, or raises a `ModelError` that names it."""
        if name not in self.tensors:
            raise ModelError(
                f"{self.path}: tensor {name!r} is missing",
                hint="the file is incomplete or its architecture has a variant not supported yet",
            )
        return self.tensors[name]

    def data(self, name: str) -> NDArray[np.uint8]:
        """Returns the encoded bytes of a tensor, uint8 [nbytes], a read-only view of the file."""
        info = self.tensor(name)
        return np.frombuffer(self._maps[info.path], np.uint8, info.nbytes, info.offset)

    def dequantize(self, name: str) -> NDArray[np.float32]:
        """Returns a tensor's values as a new float32 array of its shape."""
        info = self.tensor(name)
        data = self.data(name)
        if info.type in _PLAIN:
            return data.view(_PLAIN[info.type]).reshape(info.shape).astype(np.float32)
        rows = data.reshape(*info.shape[:-1], -1)
        try:
            with np.errstate(all="ignore"):
                values: NDArray[np.float32] = quants.dequantize(rows, info.type)
        except NotImplementedError as error:
            raise ModelError(
                f"{self.path}: tensor {name!r}: type {info.type.name} cannot be decoded",
                hint="convert the model to another type",
            ) from error
        return np.array(values, np.float32).reshape(info.shape)

    def identity(self) -> str:
        """Returns 32 hex digits that change with the content, reading one page of each tensor."""
        digest = xxhash.xxh3_128()
        starts: dict[Path, int] = {}
        for info in self.tensors.values():
            starts[info.path] = min(info.offset, starts.get(info.path, info.offset))
        for path, buffer in self._maps.items():
            digest.update(len(buffer).to_bytes(8, "little"))
            digest.update(buffer[: starts.get(path)])
        for info in self.tensors.values():
            middle = info.offset + max(0, info.nbytes - SAMPLE_BYTES) // 2
            size = min(SAMPLE_BYTES, info.nbytes)
            digest.update(self._maps[info.path][middle : middle + size])
        return digest.hexdigest()


def read_gguf(path: str | Path) -> GgufFile:
    """Opens a model: a little-endian GGUF file of version 2 or 3, with its other parts if any.

    Args:
        path: The file; of a split model, the first part, `<name>-00001-of-<count>.gguf`. Files are
            mapped read-only and never written.

    Raises:
        ModelError: A file is missing, not a GGUF, malformed, or beyond the limits of the reader, or
            the parts of a split model do not fit together. The message names file and field.
    """
    return GgufFile(read_split(read_part(Path(path))))
