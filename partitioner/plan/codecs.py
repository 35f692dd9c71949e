"""Sizes of strips and the layout of tensors in `weights.bin`, as `docs/plan-format.md` says."""

from collections.abc import Iterable
from dataclasses import dataclass

from moesaic.plan_format import Part

__all__ = [
    "CODECS",
    "STRIP_ROWS",
    "TENSOR_ALIGNMENT",
    "Codec",
    "align",
    "matrix_bytes",
    "record_layout",
]

STRIP_ROWS = 16
COLUMN_BLOCK = 32
SUPER_BLOCK = 256

TENSOR_ALIGNMENT = 4096
PART_ALIGNMENT = 64
LARGE_RECORD_BYTES = 256 << 10


def align(size: int, multiple: int) -> int:
    """Returns `size` rounded up to a multiple."""
    return -(-size // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Codec:
    """One strip codec.

    Attributes:
        name: Its name in plans.
        code_bytes: Bytes of a strip's code plane per column (float codecs) or per 32 columns.
        scale_bytes: Bytes of the scale plane per 32 columns, 0 for float codecs.
        super_bytes: Bytes of the super-scale plane per 256 columns, 0 without one.
    """

    name: str
    code_bytes: int
    scale_bytes: int = 0
    super_bytes: int = 0

    @property
    def is_float(self) -> bool:
        """Whether weights are stored as floating-point numbers."""
        return self.scale_bytes == 0

    @property
    def column_multiple(self) -> int:
        """What the number of columns must be a multiple of."""
        if self.is_float:
            return 1
        return SUPER_BLOCK if self.super_bytes else COLUMN_BLOCK

    def planes(self, cols: int) -> tuple[int, int, int]:
        """Returns the bytes of the code, scale and super-scale planes of a strip."""
        units = cols if self.is_float else cols // COLUMN_BLOCK
        return (
            align(units * self.code_bytes, PART_ALIGNMENT),
            align(units * self.scale_bytes, PART_ALIGNMENT),
            align(cols // SUPER_BLOCK * self.super_bytes, PART_ALIGNMENT),
        )

    def strip_bytes(self, cols: int) -> int:
        """Returns the bytes of a strip of 16 rows."""
        return sum(self.planes(cols))


CODECS = {
    codec.name: codec
    for codec in (
        Codec("f32", 64),
        Codec("f16", 32),
        Codec("bf16", 32),
        Codec("u4_f16", 256, 32),
        Codec("u5_f16", 320, 32),
        Codec("u8_f16", 512, 32),
        Codec("u4_e8m0_fp4", 256, 16),
        Codec("u4_super_min", 256, 32, 64),
        Codec("u6_super", 384, 32, 32),
        Codec("u5_super_min", 320, 32, 64),
        Codec("u3_super", 192, 32, 32),
        Codec("u4_f16_nl", 256, 32),
        Codec("u4_super_nl", 256, 16, 32),
        Codec("u4_f16_min", 256, 64),
        Codec("u5_f16_min", 320, 64),
        Codec("u2_super_min", 128, 32, 64),
    )
}
"""Every codec by name."""


def matrix_bytes(codec: str, rows: int, cols: int) -> int:
    """Returns the size of a matrix as strips; a vector is an `f32` matrix of one column."""
    return -(-rows // STRIP_ROWS) * CODECS[codec].strip_bytes(cols)


def record_layout(specs: Iterable[tuple[str, str, int, int]]) -> tuple[list[Part], int]:
    """Places the parts of a record.

    Args:
        specs: (role, codec, rows, cols) of each part, in order.

    Returns:
        The parts with their offsets, and the stride from one record to the next in bytes.
    """
    parts, end = [], 0
    for role, codec, rows, cols in specs:
        start = align(end, PART_ALIGNMENT)
        parts.append(Part(role=role, offset=start, codec=codec, rows=rows, cols=cols))
        end = start + matrix_bytes(codec, rows, cols)
    large = end >= LARGE_RECORD_BYTES
    return parts, align(end, TENSOR_ALIGNMENT if large else PART_ALIGNMENT)
