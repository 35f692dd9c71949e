"""Reads one GGUF file: header, metadata and tensor table, all checked before use.

Every tensor of a file that reads has a known type and a valid shape and lies inside the file,
aligned, apart from every other.
"""

import mmap
import stat
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

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


@dataclass(frozen=True, slots=True)
class Part:
    """One file: a whole model, or a part of a split one.

    Attributes:
        path: The file.
        version: Version of the format, 2 or 3.
        metadata: Every metadata key.
        tensors: The tensor table by name, in file order.
        map: The file's bytes, mapped read-only.
    """

    path: Path
    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    map: mmap.mmap


def read_part(path: Path) -> Part:
    """Reads a little-endian GGUF file of version 2 or 3.

    Raises:
        ModelError: The file is missing, not a GGUF, malformed, or beyond the limits of this module.
            The message names file and field.
    """
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
    alignment = _alignment(metadata)
    entries = [_read_tensor(cursor, index, alignment) for index in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    tensors = _place(path, entries, start, len(buffer))
    return Part(path, version, metadata, tensors, buffer)


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
