"""Rounding to MXFP4 during training: 32 weights share a power of two, each keeps 4 bits (E2M1)."""

import torch
from torch import Tensor

BLOCK = 32


def round_to_mxfp4(weights: Tensor) -> Tensor:
    """The nearest MXFP4 values of float32 ``weights`` [..., n], n a multiple of 32.

    The scale is the one ``gguf.quants.quantize`` chooses, so what is trained is what is exported:
    two to the exponent of the block's largest magnitude, less two. Ties go to the smaller value.
    """
    blocks = weights.detach().reshape(-1, BLOCK)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    _, exponent = torch.frexp(largest.clamp(min=2.0**-100))  # largest = m * 2**exponent, m < 1
    scaled = blocks * torch.exp2(3.0 - exponent)  # magnitudes now in [0, 8)
    magnitude = scaled.abs()
    halves = torch.ceil(magnitude * 2 - 0.5) / 2  # 0, 1/2, 1: steps of one half
    one_bit = ((magnitude.view(torch.int32) + 0x1FFFFF) & ~0x3FFFFF).view(torch.float32)
    rounded = torch.where(magnitude < 1, halves, one_bit.clamp(max=6.0))
    return (rounded.copysign(scaled) * torch.exp2(exponent - 3.0)).view_as(weights)


def straight_through(weights: Tensor) -> Tensor:
    """Rounded weights forward, the identity's gradient backward."""
    return weights + (round_to_mxfp4(weights) - weights).detach()
