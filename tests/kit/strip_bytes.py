"""Random strips and a plain reader of them, from the byte tables of docs/plan-format.md."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOAT_CODECS = ("f32", "f16", "bf16")
CODE_BYTES = {
    "u4_f16": 256,
    "u5_f16": 320,
    "u8_f16": 512,
    "u4_e8m0_fp4": 256,
    "u4_super_min": 256,
    "u6_super": 384,
    "u5_super_min": 320,
    "u3_super": 192,
    "u4_f16_nl": 256,
    "u4_super_nl": 256,
    "u4_f16_min": 256,
    "u5_f16_min": 320,
    "u2_super_min": 128,
}
INTEGER_CODECS = tuple(CODE_BYTES)
CODECS = FLOAT_CODECS + INTEGER_CODECS
ZERO = {"u4_f16": 8, "u5_f16": 16, "u8_f16": 128, "u6_super": 32, "u3_super": 4}  # others: 0
FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
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
        """Integers [rows, cols] before floats scale them; per column their scale and minimum."""
        values = np.zeros((len(self.code) * 16, self.cols), np.int64)
        scale, minimum = np.zeros(values.shape), np.zeros(values.shape)
        for r in range(16):
            for c in range(32):
                inner, scale[r::16, c::32], minimum[r::16, c::32] = self._scale(r, c)
                values[r::16, c::32] = inner * value_at(self.codec, self.code, r, c)
        return values[: self.rows], scale[: self.rows], minimum[: self.rows]

    def _scale(
        self, r: int, c: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Integer scale, float scale and minimum of row r and column c of every column block."""
        one = np.ones(self.code.shape[:2], np.int64)
        none = np.zeros(one.shape)
        if self.codec == "u4_e8m0_fp4":
            return one, np.ldexp(1.0, self.scale[:, :, r].astype(int) - 128), none
        if self.codec in ("u4_f16_min", "u5_f16_min"):
            return one, *self.scale[:, :, [r, 16 + r]].astype(np.float64).transpose(2, 0, 1)
        if self.supers.size == 0:
            return one, self.scale[:, :, r].astype(np.float64), none
        d = np.repeat(self.supers.astype(np.float64), 8, axis=1)
        if self.codec == "u4_super_nl":
            return one, d[:, :, r] * self.scale[:, :, r], none
        group = self.scale[:, :, 16 * (c // 16) + r].astype(np.int64)
        if self.codec == "u3_super":
            return group, d[:, :, r], none
        if self.codec == "u2_super_min":
            return group & 15, d[:, :, r], d[:, :, 16 + r] * (group >> 4)
        if self.codec == "u6_super":
            return one, d[:, :, r] * group, none
        return one, d[:, :, r] * self.scale[:, :, r], d[:, :, 16 + r] * self.scale[:, :, 16 + r]

    def weights(self) -> NDArray[np.float64]:
        """The weights [rows, cols]."""
        if self.codec in FLOAT_CODECS:
            by_column = decode_floats(self.codec, self.code)
            return by_column.transpose(0, 2, 1).reshape(-1, self.cols)[: self.rows]
        values, scale, minimum = self.sums_and_scales()
        return values * scale - minimum


def code_at(codec: str, code: NDArray[np.generic], r: int, c: int) -> NDArray[np.int64]:
    """The code of row r and column c of every column block."""

    def byte(at: int) -> NDArray[np.int64]:
        return code[:, :, at].astype(np.int64)

    def pair(start: int) -> NDArray[np.int64]:
        return byte(start + 64 * (c // 16) + 4 * r + c % 4) >> 2 * (c % 16 // 4) & 3

    def bit(start: int) -> NDArray[np.int64]:
        return byte(start + 4 * r + c % 4) >> (c // 4) & 1

    width = codec[:2]
    if width == "u8":
        return byte(64 * (c // 4) + 4 * r + c % 4)
    if width == "u2":
        return pair(0)
    if width == "u3":
        return pair(0) | bit(128) << 2
    nibbles = byte(64 * (c % 16 // 4) + 4 * r + c % 4) >> 4 * (c // 16) & 15
    if width == "u5":
        return nibbles | bit(256) << 4
    if width == "u6":
        return nibbles | pair(256) << 4
    return nibbles


def value_at(codec: str, code: NDArray[np.generic], r: int, c: int) -> NDArray[np.int64]:
    """What it stands for: by the codebook, or the zero point taken away."""
    codes = code_at(codec, code, r, c)
    if codec.endswith("_fp4"):
        return FP4[codes]
    if codec.endswith("_nl"):
        return NL[codes]
    return codes - ZERO.get(codec, 0)


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
    minimum = codec.endswith("_min")
    if codec == "u4_e8m0_fp4":
        scale = rng.integers(110, 130, (strips, blocks, 16)).astype(np.uint8)
    elif "_f16" in codec:
        scale = halves(rng, (strips, blocks, 32 if minimum else 16))
    else:
        supers = halves(rng, (strips, cols // 256, 32 if minimum else 16))
        fields = 1 if codec == "u4_super_nl" else 2
        scale = rng.integers(0, 256, (strips, blocks, 16 * fields)).astype(np.uint8)
        if not minimum:
            scale = scale.view(np.int8)
        if codec == "u3_super":
            scale = scale >> 2  # six bits
    return Strips(codec, rows, cols, code, scale, supers)


def halves(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Float16 of both signs and of magnitudes down to the subnormals."""
    values = rng.standard_normal(shape) * np.exp2(-rng.integers(0, 22, shape))
    return values.astype(np.float16)
