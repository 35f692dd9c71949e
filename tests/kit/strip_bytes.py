"""Random strips and a plain reader of them, from the byte tables of docs/plan-format.md."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOAT_CODECS = ("f32", "f16", "bf16")
INTEGER_CODECS = ("u4_f16", "u5_f16", "u8_f16", "u4_e8m0_fp4", "u4_super_min", "u6_super")
CODECS = FLOAT_CODECS + INTEGER_CODECS
FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])

CODE_BYTES = {
    "u4_f16": 256,
    "u5_f16": 320,
    "u8_f16": 512,
    "u4_e8m0_fp4": 256,
    "u4_super_min": 256,
    "u6_super": 384,
}
ZERO = {"u4_f16": 8, "u5_f16": 16, "u8_f16": 128, "u4_super_min": 0, "u6_super": 32}
FLOAT_TYPES = {"f32": np.uint32, "f16": np.uint16, "bf16": np.uint16}


@dataclass
class Strips:
    """A matrix as strips, plane by plane: each array's first axis is the strip.

    code: [strips, blocks, bytes] or, for float codecs, the bits [strips, cols, 16].
    scale: the scale plane; supers: the super-scale plane; empty where there is none.
    """

    codec: str
    rows: int
    cols: int
    code: NDArray[np.generic]
    scale: NDArray[np.generic]
    supers: NDArray[np.generic]

    def bytes(self) -> NDArray[np.uint8]:
        """The strips as they lie in `weights.bin`."""
        planes = []
        for plane in (self.code, self.scale, self.supers):
            flat = np.ascontiguousarray(plane).reshape(len(plane), -1).view(np.uint8)
            planes.append(np.pad(flat, ((0, 0), (0, -flat.shape[1] % 64))))
        return np.concatenate(planes, axis=1).reshape(-1)

    def sums_and_scales(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Values [rows, cols] before scaling, and per column their scale and minimum."""
        values = np.zeros((len(self.code) * 16, self.cols), np.int64)
        scale, minimum = np.zeros(values.shape), np.zeros(values.shape)
        for r in range(16):
            for c in range(32):
                values[r::16, c::32] = code_at(self.codec, self.code, r, c)
                scale[r::16, c::32], minimum[r::16, c::32] = self._scale(r, c)
        return values[: self.rows], scale[: self.rows], minimum[: self.rows]

    def _scale(self, r: int, c: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        strips, blocks = self.code.shape[:2]
        none = np.zeros((strips, blocks))
        if self.codec == "u4_e8m0_fp4":
            return np.ldexp(1.0, self.scale[:, :, r].astype(int) - 128), none
        if self.supers.size == 0:
            return self.scale[:, :, r].astype(np.float64), none
        d = np.repeat(self.supers.astype(np.float64), 8, axis=1)
        if self.codec == "u6_super":
            return d[:, :, r] * self.scale[:, :, 16 * (c // 16) + r].astype(float), none
        return d[:, :, r] * self.scale[:, :, r], d[:, :, 16 + r] * self.scale[:, :, 16 + r]

    def weights(self) -> NDArray[np.float64]:
        """The weights [rows, cols]."""
        if self.codec in FLOAT_CODECS:
            by_column = decode_floats(self.codec, self.code)
            return by_column.transpose(0, 2, 1).reshape(-1, self.cols)[: self.rows]
        values, scale, minimum = self.sums_and_scales()
        return values * scale - minimum


def code_at(codec: str, code: NDArray[np.generic], r: int, c: int) -> NDArray[np.int64]:
    """What row r and column c of every column block hold, the zero point taken away."""
    if codec == "u8_f16":
        return code[:, :, 64 * (c // 4) + 4 * r + c % 4].astype(np.int64) - ZERO[codec]
    nibbles = code[:, :, 64 * (c % 16 // 4) + 4 * r + c % 4].astype(np.int64) >> 4 * (c // 16) & 15
    if codec == "u4_e8m0_fp4":
        return FP4[nibbles]
    if codec == "u5_f16":
        high = code[:, :, 256 + 4 * r + c % 4].astype(np.int64) >> (c // 4) & 1
        return (nibbles | high << 4) - ZERO[codec]
    if codec == "u6_super":
        high = code[:, :, 256 + 64 * (c // 16) + 4 * r + c % 4].astype(np.int64)
        return (nibbles | (high >> 2 * (c % 16 // 4) & 3) << 4) - ZERO[codec]
    return nibbles - ZERO[codec]


def decode_floats(codec: str, bits: NDArray[np.generic]) -> NDArray[np.float64]:
    """Bits of a float codec to values."""
    if codec == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(np.float32 if codec == "f32" else np.float16).astype(np.float64)


def random_strips(rng: np.random.Generator, codec: str, rows: int, cols: int) -> Strips:
    """Random bytes in every plane, also in the padding rows; scales are finite, some subnormal."""
    strips, blocks = -(-rows // 16), cols // 32
    empty = np.zeros((strips, 0), np.uint8)
    if codec in FLOAT_CODECS:
        values = rng.standard_normal((strips, cols, 16)).astype(np.float32)
        bits = values.view(np.uint32)
        if codec == "f16":
            bits = values.astype(np.float16).view(np.uint16)
        if codec == "bf16":
            bits = (bits >> 16).astype(np.uint16)
        return Strips(codec, rows, cols, bits, empty, empty)
    code = rng.integers(0, 256, (strips, blocks, CODE_BYTES[codec]), np.uint8)
    supers: NDArray[np.generic] = empty
    scale: NDArray[np.generic]
    if codec == "u4_e8m0_fp4":
        scale = rng.integers(110, 130, (strips, blocks, 16)).astype(np.uint8)
    elif codec in ("u4_f16", "u5_f16", "u8_f16"):
        scale = halves(rng, (strips, blocks, 16))
    else:
        minimum = codec == "u4_super_min"
        supers = halves(rng, (strips, cols // 256, 32 if minimum else 16))
        scale = rng.integers(0, 256, (strips, blocks, 32)).astype(np.uint8)
        if not minimum:
            scale = scale.view(np.int8)
    return Strips(codec, rows, cols, code, scale, supers)


def halves(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Float16 of both signs and of magnitudes down to the subnormals."""
    values = rng.standard_normal(shape) * np.exp2(-rng.integers(0, 22, shape))
    return values.astype(np.float16)
