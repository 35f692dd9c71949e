"""What nodes cost: bytes and operations from the operator table, seconds from a device's facts."""

import onnx_ir as ir

from moesaic.partitioner.machine import DeviceFacts
from moesaic.partitioner.ops import OPERATORS, Load, Node, Work

__all__ = ["DECODE", "PREFILL", "seconds", "weight_bytes", "work"]

DECODE = Load(rows=1, context=1024)
"""One token of a sequence of medium length."""

PREFILL = Load(rows=512, context=0)
"""The first chunk of a prompt."""


def work(node: ir.Node, load: Load) -> Work:
    """Returns what a graph node moves and computes under a load."""
    operator = OPERATORS[node.op_type]
    return operator.work(Node(node, operator), load)


def weight_bytes(node: ir.Node) -> int:
    """Returns the bytes of a node's weights in ``weights.bin``."""
    return Node(node, OPERATORS[node.op_type]).weight_bytes()


def seconds(amount: Work, facts: DeviceFacts | None) -> float:
    """Returns the time of a step, 0 if the device's speed was not measured.

    The slower of memory and arithmetic decides.
    """
    if facts is None:
        return 0.0
    return facts.latency + max(amount.bytes / facts.read_bandwidth, amount.flops / facts.flops)
