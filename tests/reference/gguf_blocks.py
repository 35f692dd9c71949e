"""Reads GGUF blocks as what strips hold, slowly.

Each reader takes blocks [rows, n, bytes of one] and returns codes [rows, column blocks, 32], the
fields of the scale plane, each [rows, column blocks], and those of the super-scale plane, each
[rows, super-blocks].
"""

from collections.abc import Callable

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

Type = GGMLQuantizationType
Bytes = NDArray[np.uint8]
Fields = tuple[Bytes, list[NDArray[np.generic]], list[NDArray[np.generic]]]


def f16_field(blocks: Bytes, at: int) -> NDArray[np.generic]:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0]


def nibble_codes(qs: Bytes) -> Bytes:
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def read_q4_0(blocks: Bytes) -> Fields:
    return nibble_codes(blocks[..., 2:]), [f16_field(blocks, 0)], []


def read_q4_1(blocks: Bytes) -> Fields:
    return nibble_codes(blocks[..., 4:]), [f16_field(blocks, 0), -f16_field(blocks, 2)], []


def five_bit_codes(qh: Bytes, qs: Bytes) -> Bytes:
    return nibble_codes(qs) | np.unpackbits(qh, axis=-1, bitorder="little") << 4


def read_q5_0(blocks: Bytes) -> Fields:
    return five_bit_codes(blocks[..., 2:6], blocks[..., 6:]), [f16_field(blocks, 0)], []


def read_q5_1(blocks: Bytes) -> Fields:
    codes = five_bit_codes(blocks[..., 4:8], blocks[..., 8:])
    return codes, [f16_field(blocks, 0), -f16_field(blocks, 2)], []


def read_q8_0(blocks: Bytes) -> Fields:
    return blocks[..., 2:] + np.uint8(128), [f16_field(blocks, 0)], []


def read_mxfp4(blocks: Bytes) -> Fields:
    return nibble_codes(blocks[..., 1:]), [blocks[..., 0]], []


def pair_codes(qs: Bytes) -> Bytes:
    """Values e of 256 are bits 2s, 2s+1 of byte 32h + i: h = e / 128, s = e % 128 / 32."""
    halves = qs.reshape(*qs.shape[:2], 2, 1, 32)
    return halves >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3


def read_q2_k(blocks: Bytes) -> Fields:
    codes = pair_codes(blocks[..., 16:80]).reshape(len(blocks), -1, 32)
    groups = blocks[..., :16].reshape(len(blocks), -1, 2)
    supers = [f16_field(blocks, 80), f16_field(blocks, 82)]
    return codes, [groups[..., 0], groups[..., 1]], supers


def read_q3_k(blocks: Bytes) -> Fields:
    third = blocks[..., None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    low = pair_codes(blocks[..., 32:96]).reshape(third.shape)
    s = blocks[..., 96:108]
    scale = [
        (s[..., n] & 15 if n < 8 else s[..., n - 8] >> 4)
        | (s[..., 8 + n % 4] >> 2 * (n // 4) & 3) << 4
        for n in range(16)
    ]
    signed = (np.stack(scale, axis=-1) - np.uint8(32)).reshape(len(blocks), -1, 2)
    codes = (low | third << 2).reshape(len(blocks), -1, 32)
    return codes, [signed[..., 0], signed[..., 1]], [f16_field(blocks, 108)]


def six_bit_fields(blocks: Bytes) -> tuple[list[NDArray[np.generic]], list[NDArray[np.generic]]]:
    """Scales, minima and super-scales of Q4_K and Q5_K."""
    s = blocks[..., 4:16]
    scale = [s[..., g] & 63 for g in range(4)]
    scale += [s[..., g + 4] & 15 | s[..., g - 4] >> 6 << 4 for g in range(4, 8)]
    minimum = [s[..., g + 4] & 63 for g in range(4)]
    minimum += [s[..., g + 4] >> 4 | s[..., g] >> 6 << 4 for g in range(4, 8)]
    flat = [np.stack(x, axis=-1).reshape(len(blocks), -1) for x in (scale, minimum)]
    return flat, [f16_field(blocks, 0), f16_field(blocks, 2)]


def read_q4_k(blocks: Bytes) -> Fields:
    qs = blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32)
    codes = np.stack([qs & 15, qs >> 4], axis=3).reshape(len(blocks), -1, 32)
    return codes, *six_bit_fields(blocks)


def read_q5_k(blocks: Bytes) -> Fields:
    qs = blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32)
    low = np.stack([qs & 15, qs >> 4], axis=3).reshape(*blocks.shape[:2], 8, 32)
    fifth = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return (low | fifth << 4).reshape(len(blocks), -1, 32), *six_bit_fields(blocks)


def read_iq4_xs(blocks: Bytes) -> Fields:
    codes = nibble_codes(blocks[..., 8:].reshape(*blocks.shape[:2], 8, 16))
    high = np.ascontiguousarray(blocks[..., 2:4]).view(np.uint16) >> np.arange(0, 16, 2) & 3
    low = np.stack([blocks[..., 4:8] & 15, blocks[..., 4:8] >> 4], axis=-1).reshape(high.shape)
    scale = ((low | high << 4) - 32).astype(np.int8).reshape(len(blocks), -1)
    return codes.reshape(len(blocks), -1, 32), [scale], [f16_field(blocks, 0)]


def read_q6_k(blocks: Bytes) -> Fields:
    e = np.arange(256)
    h, k, i = e // 128, e % 128 // 32, e % 32
    low = blocks[..., 64 * h + 32 * (k & 1) + i] >> (4 * (k >= 2)).astype(np.uint8) & 15
    high = blocks[..., 128 + 32 * h + i] >> (2 * k).astype(np.uint8) & 3
    scales = blocks[..., 192:208].reshape(len(blocks), -1, 2)
    codes = (low | high << 4).reshape(len(blocks), -1, 32)
    return codes, [scales[..., 0], scales[..., 1]], [f16_field(blocks, 208)]


READERS: dict[GGMLQuantizationType, tuple[str, Callable[[Bytes], Fields]]] = {
    Type.Q4_0: ("u4_f16", read_q4_0),
    Type.Q4_1: ("u4_f16_min", read_q4_1),
    Type.Q5_0: ("u5_f16", read_q5_0),
    Type.Q5_1: ("u5_f16_min", read_q5_1),
    Type.Q8_0: ("u8_f16", read_q8_0),
    Type.IQ4_NL: ("u4_f16_nl", read_q4_0),
    Type.MXFP4: ("u4_e8m0_fp4", read_mxfp4),
    Type.Q2_K: ("u2_super_min", read_q2_k),
    Type.Q3_K: ("u3_super", read_q3_k),
    Type.Q4_K: ("u4_super_min", read_q4_k),
    Type.Q5_K: ("u5_super_min", read_q5_k),
    Type.Q6_K: ("u6_super", read_q6_k),
    Type.IQ4_XS: ("u4_super_nl", read_iq4_xs),
}
