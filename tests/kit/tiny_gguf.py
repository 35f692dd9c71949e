"""A byte-level GGUF writer for tests: writes what it is told, malformed or not.

Well-formed by default: counts, offsets and padding follow from the contents. Every one of them can
be replaced by a lie.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

T = GGUFValueType

_FORMATS = {
    T.UINT8: "B",
    T.INT8: "b",
    T.UINT16: "H",
    T.INT16: "h",
    T.UINT32: "I",
    T.INT32: "i",
    T.FLOAT32: "f",
    T.BOOL: "?",
    T.UINT64: "Q",
    T.INT64: "q",
    T.FLOAT64: "d",
}


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes, size: int | None = None) -> bytes:
    """A length and the text; `size` replaces the true length."""
    data = text.encode() if isinstance(text, str) else text
    return u64(len(data) if size is None else size) + data


def payload(kind: int, value: object) -> bytes:
    """The value without its type tag."""
    if kind == T.STRING:
        assert isinstance(value, str | bytes)
        return string(value)
    return struct.pack("<" + _FORMATS[T(kind)], value)


def typed(kind: int, value: object) -> bytes:
    """A type tag and a scalar."""
    return u32(kind) + payload(kind, value)


def array(kind: int, values: Iterable[object], count: int | None = None) -> bytes:
    """A typed array; `count` replaces the true length, and bytes values are written as they are."""
    items = [v if isinstance(v, bytes) else payload(kind, v) for v in values]
    return u32(T.ARRAY) + u32(kind) + u64(len(items) if count is None else count) + b"".join(items)


def guess(value: object) -> bytes:
    """Encodes a Python value the way converters do: u32, f32, bool, str, or an array of these."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, list | tuple):
        kind = _kind(value[0]) if value else T.UINT32
        if kind == T.UINT32 and any(isinstance(v, int) and v < 0 for v in value):
            kind = T.INT32
        return array(kind, value)
    return typed(_kind(value), value)


def _kind(value: object) -> GGUFValueType:
    if isinstance(value, bool):
        return T.BOOL
    if isinstance(value, int):
        return T.UINT32
    return T.FLOAT32 if isinstance(value, float) else T.STRING


@dataclass
class Tensor:
    """One tensor: `shape` is in NumPy order; `dims`, `offset` and `type` may lie."""

    name: str | bytes
    shape: Sequence[int]
    type: int = GGMLQuantizationType.F32
    data: bytes = b""
    dims: Sequence[int] | None = None
    rank: int | None = None
    offset: int | None = None

    @staticmethod
    def of(name: str, values: np.ndarray, kind: int = GGMLQuantizationType.F32) -> "Tensor":
        """A tensor that holds an array's bytes."""
        return Tensor(name, values.shape, kind, values.tobytes())


def build(
    keys: dict[str, object] | Sequence[tuple[str | bytes, object]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    alignment: int = 32,
    key_count: int | None = None,
    tensor_count: int | None = None,
) -> bytes:
    """Returns the bytes of a file. Key values are Python values, or bytes of `typed` or `array`."""
    pairs = list(keys.items()) if isinstance(keys, dict) else list(keys)
    header = magic + u32(version)
    header += u64(len(tensors) if tensor_count is None else tensor_count)
    header += u64(len(pairs) if key_count is None else key_count)
    for key, value in pairs:
        header += string(key) + guess(value)
    data = b""
    for tensor in tensors:
        dims = list(tensor.shape)[::-1] if tensor.dims is None else list(tensor.dims)
        header += string(tensor.name)
        header += u32(len(dims) if tensor.rank is None else tensor.rank)
        header += b"".join(u64(d) for d in dims) + u32(tensor.type)
        header += u64(len(data) if tensor.offset is None else tensor.offset)
        data += _padded(tensor.data, alignment)
    return _padded(header, alignment) + data if tensors else header


def write(path: Path, *args: object, **kwargs: object) -> Path:
    """Writes `build(...)` to `path` and returns the path."""
    path.write_bytes(build(*args, **kwargs))  # type: ignore[arg-type]
    return path


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)
