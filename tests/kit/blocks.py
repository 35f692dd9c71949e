"""Random GGUF blocks: every code, finite scales, and the corners of the scale formats."""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

Q = GGMLQuantizationType

F16_FIELDS = {
    Q.F16: (0,),
    Q.Q4_0: (0,),
    Q.Q4_1: (0, 2),
    Q.Q5_0: (0,),
    Q.Q5_1: (0, 2),
    Q.Q8_0: (0,),
    Q.Q2_K: (80, 82),
    Q.Q3_K: (108,),
    Q.Q4_K: (0, 2),
    Q.Q5_K: (0, 2),
    Q.Q6_K: (208,),
    Q.IQ4_NL: (0,),
    Q.IQ4_XS: (0,),
}
"""Where a block has float16 numbers."""

F16_CORNERS = np.array([0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0xFBFF, 0x3C00], np.uint16)
E8M0_CORNERS = np.array([0, 1, 2, 127, 128, 254, 255], np.uint8)


def random_blocks(
    kind: GGMLQuantizationType, values: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Returns encoded bytes of `values` values: all bits random, with finite scales."""
    block, size = GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (values // block, size), np.uint8)
    if kind == Q.F32:
        data = rng.standard_normal(values).astype(np.float32).view(np.uint8)
    if kind == Q.BF16:
        data[:, 1] &= 0xBF
    if kind == Q.MXFP4:
        corners = rng.choice(E8M0_CORNERS, len(data))
        data[:, 0] = np.where(rng.random(len(data)) < 0.2, corners, data[:, 0])
    for at in F16_FIELDS.get(kind, ()):
        bits = data[:, at : at + 2].copy().view(np.uint16)[:, 0] & 0xBFFF
        bits = np.where(rng.random(len(data)) < 0.2, rng.choice(F16_CORNERS, len(data)), bits)
        data[:, at : at + 2] = bits[:, None].view(np.uint8)
    return data.reshape(-1)


def tame_blocks(
    kind: GGMLQuantizationType, values: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Like `random_blocks`, with weights of about 1, so that sums of products stay finite."""
    data = random_blocks(kind, values, rng).reshape(-1, GGML_QUANT_SIZES[kind][1])
    if kind == Q.BF16:
        return (
            (rng.standard_normal(values).astype(np.float32).view(np.uint32) >> 16)
            .astype(np.uint16)
            .view(np.uint8)
        )
    if kind == Q.MXFP4:
        data[:, 0] = rng.integers(122, 128, len(data), np.uint8)
    for at in F16_FIELDS.get(kind, ()):
        scale = rng.uniform(0.001, 0.1, len(data)).astype(np.float16)
        data[:, at : at + 2] = scale[:, None].view(np.uint8)
    return data.reshape(-1)
