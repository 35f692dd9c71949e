"""A bounded cursor over the header of a GGUF file.

Nothing here trusts the file: every length is compared with what is left before a byte is read or a
list is grown, so the memory spent is bounded by the size of the header, which is capped itself.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from moesaic.errors import ModelError

MAX_HEADER_BYTES = 128 << 20
MAX_STRING_BYTES = 16 << 20
MAX_ARRAY_LENGTH = 1 << 23
MAX_ARRAYS = 1 << 16
MAX_ARRAY_DEPTH = 2

DAMAGED = "the file is damaged or was not downloaded completely; fetch it again"

_SCALARS: dict[object, np.dtype[Any]] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.BOOL: np.dtype("<u1"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
}
_LENGTH = struct.Struct("<Q").unpack_from

Scalar = str | int | float | bool
Value = Scalar | list[str] | NDArray[np.generic] | list["Value"]


class Cursor:
    """Reads little-endian fields in order and raises `ModelError` instead of overrunning.

    Attributes:
        position: Offset in the file of the next byte, at most the size of the file.
        where: What is being read; every error names it.
    """

    def __init__(self, path: Path, buffer: mmap.mmap) -> None:
        self.path = path
        self.position = 0
        self.where = "header"
        self._buffer = buffer
        self._end = min(len(buffer), MAX_HEADER_BYTES)
        self._arrays = 0

    def fail(self, message: str, *, hint: str = DAMAGED) -> NoReturn:
        """Raises a `ModelError` that names the file and the field being read."""
        raise ModelError(f"{self.path}: {self.where}: {message}", hint=hint)

    def take(self, size: int) -> bytes:
        """Returns the next `size` bytes."""
        self._need(size)
        start, self.position = self.position, self.position + size
        return self._buffer[start : self.position]

    def u32(self) -> int:
        """Returns the next unsigned 32-bit integer."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Returns the next unsigned 64-bit integer."""
        return int.from_bytes(self.take(8), "little")

    def string(self, limit: int = MAX_STRING_BYTES) -> str:
        """Returns the next string (u64 length, then UTF-8) of at most `limit` bytes."""
        size = self.u64()
        if size > limit:
            self.fail(f"a string of {size} bytes, more than the {limit} allowed")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            self.fail(f"a string is not valid UTF-8 ({error.reason} at byte {error.start})")

    def value_type(self) -> GGUFValueType:
        """Returns the next type tag."""
        tag = self.u32()
        try:
            return GGUFValueType(tag)
        except ValueError:
            self.fail(f"unknown value type {tag}, expected 0 to {max(GGUFValueType)}")

    def value(self, kind: GGUFValueType) -> Value:
        """Returns the next value of type `kind`: a Python scalar, or what `array` returns."""
        if kind == GGUFValueType.STRING:
            return self.string()
        if kind == GGUFValueType.ARRAY:
            return self.array()[1]
        values = self._numbers(kind, 1)
        scalar: Scalar = values[0].item()
        return scalar

    def array(self, depth: int = 1) -> tuple[GGUFValueType, Value]:
        """Returns the next array as (element type, values).

        The values are a list of `str`, a list of arrays, or a read-only NumPy array of the
        element's dtype that does not refer to the file.
        """
        self._arrays += 1
        if depth > MAX_ARRAY_DEPTH:
            self.fail(f"arrays are nested deeper than the {MAX_ARRAY_DEPTH} levels allowed")
        if self._arrays > MAX_ARRAYS:
            self.fail(f"the header holds more than the {MAX_ARRAYS} arrays allowed")
        kind, count = self.value_type(), self.u64()
        if count > MAX_ARRAY_LENGTH:
            self.fail(f"an array of {count} values, more than the {MAX_ARRAY_LENGTH} allowed")
        if kind == GGUFValueType.STRING:
            return kind, self._strings(count)
        if kind == GGUFValueType.ARRAY:
            self._need(12 * count)
            return kind, [self.array(depth + 1)[1] for _ in range(count)]
        return kind, self._numbers(kind, count)

    def _need(self, size: int) -> None:
        left = self._end - self.position
        if size <= left:
            return
        if self._end < len(self._buffer):
            self.fail(f"the header is larger than the {MAX_HEADER_BYTES} bytes allowed")
        self.fail(f"the file ends early: {size} bytes wanted at {self.position}, {left} left")

    def _numbers(self, kind: GGUFValueType, count: int) -> NDArray[np.generic]:
        dtype = _SCALARS[kind]
        values: NDArray[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if kind != GGUFValueType.BOOL:
            return values
        if count and values.max() > 1:
            self.fail(f"a boolean is {values.max()}, expected 0 or 1")
        return values.view(np.bool_)

    def _strings(self, count: int) -> list[str]:
        """Reads `count` strings in one tight loop: a vocabulary holds several 100,000 of them."""
        self._need(8 * count)
        buffer, end, position = self._buffer, self._end, self.position
        strings: list[str] = []
        append = strings.append
        try:
            for _ in range(count):
                start = position + 8
                if start > end:
                    break
                (size,) = _LENGTH(buffer, position)
                if size > end - start or size > MAX_STRING_BYTES:
                    break
                position = start + size
                append(buffer[start:position].decode())
        except UnicodeDecodeError as error:
            self.fail(f"string {len(strings)} is not valid UTF-8 ({error.reason})")
        self.position = position
        if len(strings) < count:
            self.where += f", string {len(strings)} of {count}"
            self.string()  # fails as the loop did, with the reason
            self.fail("the file ends early")
        return strings
