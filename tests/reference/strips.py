"""NumPy twin of the strip codecs, written from docs/plan-format.md: packs and decodes, slowly."""

from collections.abc import Callable

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray
from reference.gguf_blocks import READERS

Type = GGMLQuantizationType
Bytes = NDArray[np.uint8]

NL = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def planes(*parts: Bytes) -> Bytes:
    """Joins the planes [strips, bytes] of strips, each padded to 64 bytes, to a flat array."""
    padded = [np.pad(p, ((0, 0), (0, -p.shape[1] % 64))) for p in parts]
    return np.concatenate(padded, axis=1).reshape(-1)


def in_strips(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """[rows, n, ...] to [strips, n, 16 rows, ...], with zero rows at the end."""
    padding = ((0, -len(values) % 16),) + ((0, 0),) * (values.ndim - 1)
    padded = np.pad(values, padding)
    return padded.reshape(-1, 16, *values.shape[1:]).swapaxes(1, 2)


def as_bytes(values: NDArray[np.generic]) -> Bytes:
    """[strips, ...] of any type to uint8 [strips, bytes]."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


# Code planes. Codes are uint8 [strips, column blocks, 16 rows, 32].


def put_u4(codes: Bytes) -> Bytes:
    low, high = codes[..., :16] & 15, codes[..., 16:] & 15
    dwords = (low | high << 4).reshape(*codes.shape[:3], 4, 4)  # [.., row, j, i]
    return dwords.swapaxes(2, 3).reshape(*codes.shape[:2], 256)


def put_u8(codes: Bytes) -> Bytes:
    dwords = codes.reshape(*codes.shape[:3], 8, 4)
    return dwords.swapaxes(2, 3).reshape(*codes.shape[:2], 512)


def put_u1(codes: Bytes) -> Bytes:
    bits = (codes & 1).reshape(*codes.shape[:3], 8, 4)
    byte = np.packbits(bits, axis=3, bitorder="little")[..., 0, :]  # bit j of byte (row, i)
    return byte.reshape(*codes.shape[:2], 64)


def put_u2(codes: Bytes) -> Bytes:
    pairs = (codes & 3).reshape(*codes.shape[:3], 2, 4, 4)  # [.., row, h, t, i]
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    byte = np.bitwise_or.reduce(pairs << shifts, axis=4).swapaxes(2, 3)  # [.., h, row, i]
    return byte.reshape(*codes.shape[:2], 128)


def put_u3(codes: Bytes) -> Bytes:
    return np.concatenate([put_u2(codes), put_u1(codes >> 2)], axis=-1)


def put_u5(codes: Bytes) -> Bytes:
    return np.concatenate([put_u4(codes), put_u1(codes >> 4)], axis=-1)


def put_u6(codes: Bytes) -> Bytes:
    return np.concatenate([put_u4(codes), put_u2(codes >> 4)], axis=-1)


def get_u4(plane: Bytes) -> Bytes:
    dwords = plane.reshape(*plane.shape[:2], 4, 16, 4).swapaxes(2, 3)  # [.., row, j, i]
    nibbles = np.stack([dwords & 15, dwords >> 4], axis=3)
    return nibbles.reshape(*plane.shape[:2], 16, 32)


def get_u8(plane: Bytes) -> Bytes:
    dwords = plane.reshape(*plane.shape[:2], 8, 16, 4).swapaxes(2, 3)
    return dwords.reshape(*plane.shape[:2], 16, 32)


def get_u1(plane: Bytes) -> Bytes:
    byte = plane.reshape(*plane.shape[:2], 16, 1, 4)
    bits = byte >> np.arange(8, dtype=np.uint8)[:, None] & 1  # [.., row, j, i]
    return bits.reshape(*plane.shape[:2], 16, 32)


def get_u2(plane: Bytes) -> Bytes:
    byte = plane.reshape(*plane.shape[:2], 2, 16, 4).swapaxes(2, 3)[..., None, :]
    pairs = byte >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3  # [.., row, h, t, i]
    return pairs.reshape(*plane.shape[:2], 16, 32)


def get_u3(plane: Bytes) -> Bytes:
    return get_u2(plane[..., :128]) | get_u1(plane[..., 128:]) << 2


def get_u5(plane: Bytes) -> Bytes:
    return get_u4(plane[..., :256]) | get_u1(plane[..., 256:]) << 4


def get_u6(plane: Bytes) -> Bytes:
    return get_u4(plane[..., :256]) | get_u2(plane[..., 256:]) << 4


FLOATS = {
    Type.F32: ("f32", np.uint32),
    Type.F16: ("f16", np.uint16),
    Type.BF16: ("bf16", np.uint16),
}
WIDTHS = {"u2": (128, put_u2, get_u2), "u3": (192, put_u3, get_u3)}
WIDTHS |= {"u4": (256, put_u4, get_u4), "u5": (320, put_u5, get_u5)}
WIDTHS |= {"u6": (384, put_u6, get_u6), "u8": (512, put_u8, get_u8)}


def encode(kind: GGMLQuantizationType, raw: Bytes, rows: int, cols: int) -> Bytes:
    """Packs `raw` GGUF bytes of a matrix [rows, cols] as strips, uint8 [bytes]."""
    if kind in FLOATS:
        values = raw.view(FLOATS[kind][1]).reshape(rows, cols)
        return planes(as_bytes(in_strips(values)))
    codec, read = READERS[kind]
    codes, scales, supers = read(raw.reshape(rows, -1, GGML_QUANT_SIZES[kind][1]))
    fields = [  # each [strips, blocks, field, 16 rows]
        np.stack([in_strips(x) for x in group], axis=2) for group in (scales, supers) if group
    ]
    _, put, _ = WIDTHS[codec[:2]]
    return planes(as_bytes(put(in_strips(codes))), *map(as_bytes, fields))


def decode(codec: str, data: Bytes, rows: int, cols: int) -> NDArray[np.float32]:
    """Returns the weights of strips, float32 [rows, cols]."""
    strips = data.reshape(-(-rows // 16), -1)
    if codec in ("f32", "f16", "bf16"):
        return decode_floats(codec, strips, cols)[:rows]
    blocks = cols // 32
    size, _, get = WIDTHS[codec[:2]]
    codes = get(strips[:, : blocks * size].reshape(-1, blocks, size)).astype(np.float32)
    fields = Fields16(strips, -(-blocks * size // 64) * 64, blocks)
    values = DECODERS[codec](codes, fields)  # [strips, blocks, 16, 32]
    return values.swapaxes(1, 2).reshape(-1, cols)[:rows]


def decode_floats(codec: str, strips: Bytes, cols: int) -> NDArray[np.float32]:
    if codec == "bf16":
        values = (strips[:, : 32 * cols].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        dtype = np.dtype({"f32": np.float32, "f16": np.float16}[codec])
        values = strips[:, : 16 * cols * dtype.itemsize].view(dtype).astype(np.float32)
    return values.reshape(-1, cols, 16).swapaxes(1, 2).reshape(-1, cols)


class Fields16:
    """Reads the scale and super-scale planes of strips."""

    def __init__(self, strips: Bytes, start: int, blocks: int) -> None:
        self.strips, self.start, self.blocks = strips, start, blocks

    def scales(self, dtype: type[np.generic], count: int) -> NDArray[np.float32]:
        """The scale plane as float32 [strips, column blocks, count, 16, 1]."""
        return self._field(self.start, dtype, self.blocks, count)

    def supers(self, count: int, scale_bytes: int) -> NDArray[np.float32]:
        """The super-scale plane, repeated for each column block: [strips, blocks, count, 16, 1]."""
        start = self.start + -(-self.blocks * scale_bytes // 64) * 64
        return self._field(start, np.float16, self.blocks // 8, count).repeat(8, axis=1)

    def _field(
        self, start: int, dtype: type[np.generic], blocks: int, count: int
    ) -> NDArray[np.float32]:
        size = blocks * count * 16 * np.dtype(dtype).itemsize
        data = np.ascontiguousarray(self.strips[:, start : start + size]).view(dtype)
        return data.reshape(-1, blocks, count, 16, 1).astype(np.float32)


def decode_f16(zero: int) -> Callable[[NDArray[np.float32], Fields16], NDArray[np.float32]]:
    return lambda codes, fields: fields.scales(np.float16, 1)[:, :, 0] * (codes - zero)


def decode_fp4(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    exponent = fields.scales(np.uint8, 1)[:, :, 0].astype(np.int32) - 128
    with np.errstate(over="ignore"):  # 12 * 2^126 is infinite, in gguf.quants as well
        return np.ldexp(FP4[codes.astype(np.int64)], exponent)


def decode_f16_min(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    factors = fields.scales(np.float16, 2)
    return factors[:, :, 0] * codes - factors[:, :, 1]


def decode_nl(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    return fields.scales(np.float16, 1)[:, :, 0] * NL[codes.astype(np.int64)]


def decode_super_nl(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    factor = fields.supers(1, 16) * fields.scales(np.int8, 1)
    return factor[:, :, 0] * NL[codes.astype(np.int64)]


def decode_super_min(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    scale, supers = fields.scales(np.uint8, 2), fields.supers(2, 32)
    factors = supers * scale
    return factors[:, :, 0] * codes - factors[:, :, 1]


def in_halves(codes: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factors [strips, blocks, 2, 16, 1] of the two groups of 16, in the shape of the codes."""
    return factors[..., 0].swapaxes(2, 3).repeat(16, axis=-1).reshape(codes.shape)


def decode_super_min_16(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
    scale, supers = fields.scales(np.uint8, 2).astype(np.uint8), fields.supers(2, 32)
    factor, minimum = supers[:, :, :1] * (scale & 15), supers[:, :, 1:] * (scale >> 4)
    return in_halves(codes, factor) * codes - in_halves(codes, minimum)


def decode_super(zero: int) -> Callable[[NDArray[np.float32], Fields16], NDArray[np.float32]]:
    def weights(codes: NDArray[np.float32], fields: Fields16) -> NDArray[np.float32]:
        factors = fields.supers(1, 32) * fields.scales(np.int8, 2)
        return in_halves(codes, factors) * (codes - zero)

    return weights


DECODERS: dict[str, Callable[[NDArray[np.float32], Fields16], NDArray[np.float32]]] = {
    "u4_f16": decode_f16(8),
    "u5_f16": decode_f16(16),
    "u8_f16": decode_f16(128),
    "u4_f16_min": decode_f16_min,
    "u5_f16_min": decode_f16_min,
    "u4_f16_nl": decode_nl,
    "u4_e8m0_fp4": decode_fp4,
    "u2_super_min": decode_super_min_16,
    "u3_super": decode_super(4),
    "u4_super_min": decode_super_min,
    "u5_super_min": decode_super_min,
    "u6_super": decode_super(32),
    "u4_super_nl": decode_super_nl,
}
