"""Opens GGUF files: header, metadata and tensor table, all checked before use.

A file that opens is safe to read: every tensor has a known type and a valid shape and lies inside
the file, aligned, apart from every other. Truncating a file while it is open is not survived.
"""

import mmap
import re
import stat
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, quants
from numpy.typing import NDArray

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.cursor import DAMAGED, Cursor
from moesaic.partitioner.gguf.metadata import Field, Metadata

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
MAX_TENSORS = 1 << 18
MAX_NAME_BYTES = 255
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16
DEFAULT_ALIGNMENT = 32
SAMPLE_BYTES = 4096

_PLAIN: dict[object, np.dtype[Any]] = {
    GGMLQuantizationType.F64: np.dtype("<f8"),
    GGMLQuantizationType.I8: np.dtype("<i1"),
    GGMLQuantizationType.I16: np.dtype("<i2"),
    GGMLQuantizationType.I32: np.dtype("<i4"),
    GGMLQuantizationType.I64: np.dtype("<i8"),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies and how to read it.

    Attributes:
        name: The tensor's name, unique in the model.
        type: How its values are encoded.
        shape: Dimensions in NumPy order, outermost first; blocks run along the last one.
        path: The file that holds it.
        offset: Position of the first byte in that file.
        nbytes: Size of the encoded tensor in bytes.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int


class GgufFile:
    """An open, validated GGUF model. The file stays mapped while this or a `data` view lives.

    Attributes:
        path: The file that was opened.
        version: Version of the format, 2 or 3.
        metadata: Every metadata key.
        tensors: The tensor table by name, in file order.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        metadata: Metadata,
        tensors: dict[str, TensorInfo],
        maps: dict[Path, mmap.mmap],
    ) -> None:
        self.path = path
        self.version = version
        self.metadata = metadata
        self.tensors = tensors
        self._maps = maps

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
                f"{self.path}: tensor {name!r}: type {info.type.name} cannot be decoded"
            ) from error
        return np.array(values, np.float32).reshape(info.shape)

    def identity(self) -> str:
        """Returns 32 hex digits that change with the content, reading one page of each tensor."""
        digest = xxhash.xxh3_128()
        for buffer in self._maps.values():
            digest.update(len(buffer).to_bytes(8, "little"))
        starts = [t.offset for t in self.tensors.values() if t.path == self.path]
        digest.update(self._maps[self.path][: min(starts, default=None)])
        for info in self.tensors.values():
            middle = info.offset + max(0, info.nbytes - SAMPLE_BYTES) // 2
            size = min(SAMPLE_BYTES, info.nbytes)
            digest.update(self._maps[info.path][middle : middle + size])
        return digest.hexdigest()


def read_gguf(path: str | Path) -> GgufFile:
    """Opens a little-endian GGUF file of version 2 or 3.

    Args:
        path: The file. It is mapped read-only and never written.

    Raises:
        ModelError: The file is missing, not a GGUF, malformed, beyond the limits of this module,
            or one part of a split model. The message names file and field.
    """
    path = Path(path)
    buffer = _map(path)
    cursor = Cursor(path, buffer)
    version = _read_version(cursor)
    cursor.where = "header"
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count > MAX_TENSORS:
        cursor.fail(f"{tensor_count} tensors, more than the {MAX_TENSORS} allowed")
    if key_count > MAX_KEYS:
        cursor.fail(f"{key_count} metadata keys, more than the {MAX_KEYS} allowed")
    metadata = Metadata(path, _read_fields(cursor, key_count))
    _refuse_split(metadata)
    alignment = _alignment(metadata)
    entries = [_read_tensor(cursor, index, alignment) for index in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    tensors = _place(path, entries, start, len(buffer))
    return GgufFile(path, version, metadata, tensors, {path: buffer})


def _map(path: Path) -> mmap.mmap:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelError(f"{path}: is a directory", hint="give the .gguf file inside it")
        if not stat.S_ISREG(mode):  # opening a named pipe would wait forever
            raise ModelError(f"{path}: is not a regular file", hint="give a .gguf file")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file", hint="check the path of the model") from error
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", hint="check the file's rights") from error
    except ValueError as error:  # an empty file, or a NUL in the path
        raise ModelError(f"{path}: cannot be mapped: {error}", hint=DAMAGED) from error


def _read_version(cursor: Cursor) -> int:
    magic = cursor.take(4)
    if magic != MAGIC:
        hint = "give a file that ends in .gguf"
        if magic == b"vers":
            hint = "this is a Git LFS pointer; fetch the file itself with `git lfs pull`"
        cursor.fail(f"not a GGUF file: it begins with {magic!r}, expected {MAGIC!r}", hint=hint)
    cursor.where = "version"
    version = cursor.u32()
    if version & 0xFFFF == 0 and version:
        cursor.fail("the file is big-endian", hint="convert it with `gguf-convert-endian`")
    if version not in VERSIONS:
        cursor.fail(f"expected 2 or 3 but got {version}", hint="convert the model again")
    return version


def _read_fields(cursor: Cursor, count: int) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for index in range(count):
        cursor.where = f"metadata key {index}"
        key = cursor.string(MAX_KEY_BYTES)
        if not key:
            cursor.fail("the key is empty")
        cursor.where = f"metadata key {key[:80]!r}"
        if key in fields:
            cursor.fail("occurs twice")
        kind = cursor.value_type()
        if kind == GGUFValueType.ARRAY:
            element, values = cursor.array()
            fields[key] = Field(kind, values, element)
        else:
            fields[key] = Field(kind, cursor.value(kind))
    return fields


def _refuse_split(metadata: Metadata) -> None:
    parts = metadata.u32("split.count", 1)
    if parts > 1:
        metadata.fail(
            "split.count",
            f"the model is split into {parts} files, which is not supported yet",
            hint="join them with `llama-gguf-split --merge`",
        )


def _alignment(metadata: Metadata) -> int:
    key = "general.alignment"
    alignment = metadata.u32(key, DEFAULT_ALIGNMENT)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        metadata.fail(
            key, f"expected a power of two up to {MAX_ALIGNMENT} but got {alignment}", hint=DAMAGED
        )
    return alignment


def _read_tensor(
    cursor: Cursor, index: int, alignment: int
) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int, int]:
    """Returns (name, type, shape, offset from the start of the data, nbytes)."""
    cursor.where = f"tensor {index}"
    name = cursor.string(MAX_NAME_BYTES)
    if not name:
        cursor.fail("the name is empty")
    cursor.where = f"tensor {name!r}"
    rank = cursor.u32()
    if not 1 <= rank <= MAX_DIMENSIONS:
        cursor.fail(f"expected 1 to {MAX_DIMENSIONS} dimensions but got {rank}")
    shape = tuple(cursor.u64() for _ in range(rank))[::-1]
    if 0 in shape:
        cursor.fail(f"a dimension is zero: {list(shape)}")
    kind = _tensor_type(cursor)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        cursor.fail(f"rows of {shape[-1]} values, not a multiple of {kind.name}'s block of {block}")
    offset = cursor.u64()
    if offset % alignment:
        cursor.fail(f"offset {offset} is not a multiple of the alignment {alignment}")
    return name, kind, shape, offset, prod(shape) // block * block_bytes


def _tensor_type(cursor: Cursor) -> GGMLQuantizationType:
    tag = cursor.u32()
    try:
        kind = GGMLQuantizationType(tag)
    except ValueError:
        kind = None
    if kind not in GGML_QUANT_SIZES:
        cursor.fail(
            f"unknown tensor type {tag}",
            hint="the file uses a type newer than this version knows, or is damaged",
        )
    return kind


def _place(
    path: Path,
    entries: list[tuple[str, GGMLQuantizationType, tuple[int, ...], int, int]],
    start: int,
    file_bytes: int,
) -> dict[str, TensorInfo]:
    """Makes the tensor table, checking names, bounds and overlaps."""
    tensors: dict[str, TensorInfo] = {}
    for name, kind, shape, offset, nbytes in entries:
        end = start + offset + nbytes
        if name in tensors:
            raise ModelError(f"{path}: tensor {name!r}: occurs twice", hint=DAMAGED)
        if end > file_bytes:
            message = f"ends at byte {end}, beyond the file's {file_bytes} bytes"
            raise ModelError(f"{path}: tensor {name!r}: {message}", hint=DAMAGED)
        tensors[name] = TensorInfo(name, kind, shape, path, start + offset, nbytes)
    for a, b in pairwise(sorted(tensors.values(), key=lambda t: t.offset)):
        if a.offset + a.nbytes > b.offset:
            raise ModelError(f"{path}: tensor {b.name!r}: overlaps {a.name!r}", hint=DAMAGED)
    return tensors
