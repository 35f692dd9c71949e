"""What nodes cost: bytes and operations from the operator table, seconds from a device's facts."""

from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.memory import kv_row_bytes
from moesaic.partitioner.ops import OPERATORS, Load, Node, Work
from moesaic.partitioner.plan.codecs import CODECS
from moesaic.plan_format import Facts, KvType, Limits

__all__ = ["STREAMED", "Loads", "Seconds", "integer_share", "seconds", "weight_bytes", "work"]

DECODE_CONTEXT = 1024
PREFILL_ROWS = 512

STREAMED = 0.85
"""Part of the bandwidth of plain reading that a step reaches while it multiplies."""

REQUEST_TOKENS = 128
"""Decoded tokens for each chunk of a prompt, where one number must stand for both speeds."""

_KERNELS = {"Attention": 2, "LatentAttention": 3, "Experts": 2}
"""Kernels that an operator starts one after the other, if more than one."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time for one decoded token, and for a chunk of a prompt."""

    decode: float = 0.0
    prefill: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.decode + other.decode, self.prefill + other.prefill)

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.decode - other.decode, self.prefill - other.prefill)

    @property
    def request(self) -> float:
        """Seconds of a request with one chunk of prompt and `REQUEST_TOKENS` of reply."""
        return self.prefill + REQUEST_TOKENS * self.decode

    def no_worse(self, other: "Seconds") -> bool:
        """Whether neither a token nor a whole request takes longer, but for rounding."""
        slack = 1 + 1e-9
        return self.decode <= other.decode * slack and self.request <= other.request * slack


@dataclass(frozen=True, slots=True)
class Loads:
    """The two steps that plans are judged by; only the last row's logits are wanted."""

    decode: Load
    prefill: Load

    @staticmethod
    def of(limits: Limits, kv_type: KvType = "f16") -> "Loads":
        """Returns a token of a sequence of medium length, and the first chunk of a prompt."""
        value = kv_row_bytes(kv_type, 32) / 32
        chunk = min(PREFILL_ROWS, limits.batch, limits.context)
        return Loads(Load(1, min(DECODE_CONTEXT, limits.context - 1), value), Load(chunk, 0, value))


def work(node: ir.Node, load: Load) -> Work:
    """Returns what a graph node moves and computes under a load."""
    operator = OPERATORS[node.op_type]
    return operator.work(Node(node, operator), load)


def weight_bytes(node: ir.Node) -> int:
    """Returns the bytes of a node's weights in ``weights.bin``."""
    return Node(node, OPERATORS[node.op_type]).weight_bytes()


def integer_share(node: ir.Node) -> float:
    """Returns the part of a node's operations that multiply integer weights."""
    if "codec" in node.attributes:
        return 0.0 if CODECS[node.attributes["codec"].value].is_float else 1.0
    if "codecs" not in node.attributes:
        return 0.0
    columns = (node.attributes[name].value for name in ("codecs", "rows", "cols"))
    sizes = [(CODECS[c].is_float, r * n) for c, r, n in zip(*columns, strict=True)]
    integer = float(sum(size for is_float, size in sizes if not is_float))
    return integer / float(sum(size for _, size in sizes))


def seconds(op: str, amount: Work, integer: float, facts: Facts) -> float:
    """Returns the time of a step: its kernels' starts, then the slower of memory and arithmetic.

    Args:
        op: The operator.
        amount: What it moves and computes.
        integer: The part of the operations that multiplies integer weights.
        facts: The device's speed.
    """
    starts = _KERNELS.get(op, 1)
    arithmetic: float = amount.flops * (
        integer / facts.int8_rate + (1 - integer) / facts.float_rate
    )
    moving: float = amount.bytes / (STREAMED * facts.read_bandwidth)
    time: float = starts * facts.latency + max(moving, arithmetic)
    return time
