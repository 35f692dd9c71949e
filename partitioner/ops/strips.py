"""Decodes strips in standard ONNX operators; docs/plan-format.md, section 2, has the layout.

There is no operator that reinterprets bits, so numbers are put together from their bytes, exactly.
Looking a number up is slower than a dozen arithmetic operators, so tables are for scales and signs.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from moesaic.partitioner.ops.body import Body
from moesaic.partitioner.plan.codecs import CODECS, STRIP_ROWS

__all__ = ["decode", "decode_vector"]


def decode(b: Body, codec: str, strips: ir.Value, cols: int) -> ir.Value:
    """Decodes uint8 [strips, bytes of a strip] to float32 [16 · strips, cols]."""
    weights = _FLOATS[codec] if CODECS[codec].is_float else _INTEGERS[codec]
    values = weights(b, strips, cols)  # [strips, 16, ...]
    return b("Reshape", values, [-1, cols])


def decode_vector(b: Body, data: ir.Value, length: int) -> ir.Value:
    """Decodes a vector, uint8 [bytes], to float32 [length]."""
    quads = b("Reshape", b.cut(data, 0, 4 * length, 0), [length, 4])
    return _float32(b, quads, [0, 1, 2, 3])


# Numbers from bytes


def _byte(b: Body, data: ir.Value, index: int) -> ir.Value:
    """Returns byte `index` of the last axis, which vanishes."""
    return b("Gather", data, index, axis=-1)


def _look_up(b: Body, table: np.ndarray, index: ir.Value) -> ir.Value:
    return b("Gather", b.floats(table), b.cast(index, ir.DataType.INT32))


def _float32(b: Body, data: ir.Value, order: list[int]) -> ir.Value:
    """Returns finite float32 numbers of their bytes, given from the lowest (the others are zero).

    The top byte holds the sign and h, the exponent but for its last bit. Over the value `low` of
    the rest, 0 to 256, a number is piecewise linear: 2^(2h - 127) · max(1 + low / 128, low / 64),
    where the one is missing if h is 0.
    """
    *rest, second, top = (_byte(b, data, i) for i in order)
    low = b.cast(second)
    for place, byte in enumerate(reversed(rest), start=1):
        low = b("Add", low, b("Mul", b.cast(byte), b.floats(256.0**-place)))
    one = b.cast(b("Min", b("BitwiseAnd", top, b.bytes(127)), b.bytes(1)))
    first = b("Add", one, b("Mul", low, b.floats(1 / 128)))
    significand = b("Max", first, b("Mul", low, b.floats(1 / 64)))
    power = np.ldexp(1.0, 2 * np.arange(128) - 127)
    return b("Mul", significand, _look_up(b, np.concatenate([power, -power]), top))


def _float16(b: Body, data: ir.Value) -> ir.Value:
    """Returns finite float16 numbers of their two bytes: mantissa times step of the exponent."""
    low, high = _byte(b, data, 0), _byte(b, data, 1)
    one = b("Min", b("BitwiseAnd", high, b.bytes(124)), b.bytes(4))  # 4 unless subnormal
    upper = b.cast(b("BitwiseOr", one, b("BitwiseAnd", high, b.bytes(3))))
    mantissa = b("Add", b("Mul", upper, b.floats(256)), b.cast(low))
    step = np.ldexp(1.0, np.maximum(np.arange(128) >> 2, 1) - 25)
    return b("Mul", mantissa, _look_up(b, np.concatenate([step, -step]), high))


# Float codecs: [column][16 rows]


def _float_plane(b: Body, strips: ir.Value, cols: int, size: int) -> ir.Value:
    """Returns the bytes of the weights, [strips, 16, cols, size]."""
    plane = b.cut(strips, 0, STRIP_ROWS * cols * size)
    elements = b("Reshape", plane, [-1, cols, STRIP_ROWS, size])
    return b("Transpose", elements, perm=[0, 2, 1, 3])


Decoder = Callable[[Body, ir.Value, int], ir.Value]

_FLOATS: dict[str, Decoder] = {
    "f32": lambda b, strips, cols: _float32(b, _float_plane(b, strips, cols, 4), [0, 1, 2, 3]),
    "f16": lambda b, strips, cols: _float16(b, _float_plane(b, strips, cols, 2)),
    "bf16": lambda b, strips, cols: _float32(b, _float_plane(b, strips, cols, 2), [0, 1]),
}


# Code planes: uint8 [strips, column blocks, bytes of a block] to uint8 [strips, 16, blocks, 32]


def _u1(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    bits = b("Reshape", plane, [-1, blocks, 1, 1, STRIP_ROWS, 4])
    return _columns_last(b, _field(b, bits, np.arange(8).reshape(2, 4, 1, 1), 1), blocks)


def _u2(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    pairs = b("Reshape", plane, [-1, blocks, 2, 1, STRIP_ROWS, 4])
    return _columns_last(b, _field(b, pairs, np.arange(0, 8, 2).reshape(4, 1, 1), 3), blocks)


def _u3(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    low, high = b.cut(plane, 0, 128), b.cut(plane, 128, 192)
    return _join(b, _u2(b, low, blocks), _u1(b, high, blocks), 2)


def _u4(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    pairs = b("Reshape", plane, [-1, blocks, 1, 4, STRIP_ROWS, 4])
    low = b("BitwiseAnd", pairs, b.bytes(15))
    high = b("BitShift", pairs, b.bytes(4), direction="RIGHT")
    return _columns_last(b, b("Concat", low, high, axis=2), blocks)


def _u5(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    low, high = b.cut(plane, 0, 256), b.cut(plane, 256, 320)
    return _join(b, _u4(b, low, blocks), _u1(b, high, blocks), 4)


def _u6(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    low, high = b.cut(plane, 0, 256), b.cut(plane, 256, 384)
    return _join(b, _u4(b, low, blocks), _u2(b, high, blocks), 4)


def _u8(b: Body, plane: ir.Value, blocks: int) -> ir.Value:
    return _columns_last(b, b("Reshape", plane, [-1, blocks, 2, 4, STRIP_ROWS, 4]), blocks)


def _columns_last(b: Body, codes: ir.Value, blocks: int) -> ir.Value:
    """[strips, blocks, 2, 4, 16 rows, 4], where column is 16 h + 4 j + i, to rows of columns."""
    rows = b("Transpose", codes, perm=[0, 4, 1, 2, 3, 5])
    return b("Reshape", rows, [-1, STRIP_ROWS, blocks, 32])


def _field(b: Body, data: ir.Value, shifts: np.ndarray, mask: int) -> ir.Value:
    shifted = b("BitShift", data, b.bytes(shifts), direction="RIGHT")
    return b("BitwiseAnd", shifted, b.bytes(mask))


def _join(b: Body, low: ir.Value, high: ir.Value, shift: int) -> ir.Value:
    return b("BitwiseOr", low, b("BitShift", high, b.bytes(shift), direction="LEFT"))


_WIDTHS = {"u2": _u2, "u3": _u3, "u4": _u4, "u5": _u5, "u6": _u6, "u8": _u8}


class _Planes:
    """Reads the planes of the strips of an integer codec."""

    def __init__(self, b: Body, codec: str, strips: ir.Value, cols: int) -> None:
        self._b, self._strips, self._codec = b, strips, codec
        self._planes = CODECS[codec].planes(cols)
        self.blocks = cols // 32

    def codes(self) -> ir.Value:
        """Returns float32 [strips, 16, blocks, 32]."""
        b, size = self._b, CODECS[self._codec].code_bytes
        plane = b.cut(self._strips, 0, self.blocks * size)
        unpack = _WIDTHS[self._codec[:2]]
        return b.cast(unpack(b, b("Reshape", plane, [-1, self.blocks, size]), self.blocks))

    def scales(self, fields: int, size: int = 1) -> ir.Value:
        """Returns the scale plane's bytes, uint8 [strips, 16, blocks, fields, size]."""
        return self._fields(self._planes[0], self.blocks, fields, size)

    def supers(self, fields: int) -> ir.Value:
        """Returns the super-scale plane, float32 [strips, 16, super-blocks, fields]."""
        start = self._planes[0] + self._planes[1]
        return _float16(self._b, self._fields(start, self.blocks // 8, fields, 2))

    def _fields(self, start: int, blocks: int, fields: int, size: int) -> ir.Value:
        b = self._b
        plane = b.cut(self._strips, start, start + blocks * fields * STRIP_ROWS * size)
        elements = b("Reshape", plane, [-1, blocks, fields, STRIP_ROWS, size])
        return b("Transpose", elements, perm=[0, 3, 1, 2, 4])


def _split(b: Body, pairs: ir.Value) -> list[ir.Value]:
    return b.many("Split", 2, pairs, axis=-1, num_outputs=2)


# Codebooks: float32 codes to what they stand for

Codebook = Callable[[Body, ir.Value], ir.Value]


def _linear(zero: int) -> Codebook:
    return lambda b, codes: b("Sub", codes, b.floats(zero))


def _fp4(b: Body, codes: ir.Value) -> ir.Value:
    """Returns sign · (0, 1, 2, 3, 4, 6, 8, 12), a convex curve, of codes 0 to 15."""
    negative = b.cast(b("GreaterOrEqual", codes, b.floats(8)))
    k = b("Sub", codes, b("Mul", negative, b.floats(8)))
    lines = [
        b("Sub", b("Mul", k, b.floats(slope)), b.floats(at)) for slope, at in ((2, 4), (4, 16))
    ]
    sign = b("Sub", b.floats(1), b("Mul", negative, b.floats(2)))
    return b("Mul", sign, b("Max", k, *lines))


def _non_linear(b: Body, codes: ir.Value) -> ir.Value:
    values = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    return _look_up(b, np.array(values), codes)


# Integer codecs


def _f16_scaled(codec: str, codebook: Codebook) -> Decoder:
    def weights(b: Body, strips: ir.Value, cols: int) -> ir.Value:
        planes = _Planes(b, codec, strips, cols)
        scale = _float16(b, planes.scales(1, 2))  # [strips, 16, blocks, 1]
        return b("Mul", scale, codebook(b, planes.codes()))

    return weights


def _f16_min(codec: str) -> Decoder:
    def weights(b: Body, strips: ir.Value, cols: int) -> ir.Value:
        planes = _Planes(b, codec, strips, cols)
        scale, minimum = _split(b, _float16(b, planes.scales(2, 2)))
        return b("Sub", b("Mul", scale, planes.codes()), minimum)

    return weights


def _e8m0_fp4(b: Body, strips: ir.Value, cols: int) -> ir.Value:
    planes = _Planes(b, "u4_e8m0_fp4", strips, cols)
    powers = np.ldexp(1.0, np.arange(256) - 128)
    scale = _look_up(b, powers, b("Squeeze", planes.scales(1), [-1]))
    return b("Mul", scale, _fp4(b, planes.codes()))


def _super_min(codec: str) -> Decoder:
    def weights(b: Body, strips: ir.Value, cols: int) -> ir.Value:
        planes = _Planes(b, codec, strips, cols)
        groups = b.cast(b("Reshape", planes.scales(2), [-1, STRIP_ROWS, cols // 256, 8, 2]))
        factors = b("Mul", b("Unsqueeze", planes.supers(2), [3]), groups)
        scale, minimum = _split(b, factors)
        codes = b("Reshape", planes.codes(), [-1, STRIP_ROWS, cols // 256, 8, 32])
        return b("Sub", b("Mul", scale, codes), minimum)

    return weights


def _super_min_nibbles(b: Body, strips: ir.Value, cols: int) -> ir.Value:
    planes = _Planes(b, "u2_super_min", strips, cols)
    pairs = b("Reshape", planes.scales(2), [-1, STRIP_ROWS, cols // 256, 16, 1])
    groups = b.cast(_field(b, pairs, np.array([0, 4]), 15))
    factors = b("Mul", b("Unsqueeze", planes.supers(2), [3]), groups)
    scale, minimum = _split(b, factors)
    codes = b("Reshape", planes.codes(), [-1, STRIP_ROWS, cols // 256, 16, 16])
    return b("Sub", b("Mul", scale, codes), minimum)


def _super(codec: str, fields: int, codebook: Codebook) -> Decoder:
    """Signed group scales, `fields` to a column block."""

    def weights(b: Body, strips: ir.Value, cols: int) -> ir.Value:
        planes = _Planes(b, codec, strips, cols)
        signed = _look_up(b, np.arange(256, dtype=np.uint8).view(np.int8), planes.scales(fields))
        shape = [-1, STRIP_ROWS, cols // 256, 8 * fields]
        factors = b("Mul", b("Unsqueeze", planes.supers(1), [3]), b("Reshape", signed, [*shape, 1]))
        values = b("Reshape", codebook(b, planes.codes()), [*shape, 32 // fields])
        return b("Mul", factors, values)

    return weights


_INTEGERS: dict[str, Decoder] = {
    "u4_f16": _f16_scaled("u4_f16", _linear(8)),
    "u5_f16": _f16_scaled("u5_f16", _linear(16)),
    "u8_f16": _f16_scaled("u8_f16", _linear(128)),
    "u4_f16_nl": _f16_scaled("u4_f16_nl", _non_linear),
    "u4_f16_min": _f16_min("u4_f16_min"),
    "u5_f16_min": _f16_min("u5_f16_min"),
    "u4_e8m0_fp4": _e8m0_fp4,
    "u2_super_min": _super_min_nibbles,
    "u4_super_min": _super_min("u4_super_min"),
    "u5_super_min": _super_min("u5_super_min"),
    "u3_super": _super("u3_super", 2, _linear(4)),
    "u6_super": _super("u6_super", 2, _linear(32)),
    "u4_super_nl": _super("u4_super_nl", 1, _non_linear),
}
