"""Memory that the CPU's kernels work in besides arena and scratch: the reserve of the host.

It depends on the number of threads, which is that of the machine that plans; a runtime with other
threads holds more or less of it.
"""

from collections.abc import Iterable, Mapping

from moesaic.partitioner.lowering import Program
from moesaic.partitioner.plan.codecs import align
from moesaic.plan_format import Limits, Step, Tensor

__all__ = ["workspace_bytes"]

_VECTOR = 16  # floats that every region is padded to
_PAGE_TOKENS = 32
_SPAN_TOKENS = 1024  # tokens of context that are attended to apart
_BLOCK_QUERIES = 64
_ITEMS_PER_THREAD = 4


def workspace_bytes(
    program: Program,
    device: str,
    tensors: Mapping[str, Tensor],
    limits: Limits,
    threads: int,
) -> int:
    """Returns the bytes that kernels of a host's steps work in, by the plan format's formula."""
    steps = [step for step in program.steps if step.device == device]
    needs = [_need(step, limits, threads) for step in steps]
    each = max((align(each, _VECTOR) for each, _ in needs), default=0)
    common = max((align(common, _VECTOR) for _, common in needs), default=0)
    return 4 * (common + threads * each) + _rope_tables(steps, tensors, limits)


def _need(step: Step, limits: Limits, threads: int) -> tuple[int, int]:
    """Returns the floats that a step needs for each thread, and for all of them together."""
    if step.op == "Route":
        return 2 * int(step.attrs["experts"]), 0
    if step.op != "Attention":
        return 0, 0
    heads, kv_heads = int(step.attrs["heads"]), int(step.attrs["kv_heads"])
    k_dim, v_dim = (align(int(step.attrs[name]), _VECTOR) for name in ("k_dim", "v_dim"))
    partial = _VECTOR + v_dim
    queries = max(_BLOCK_QUERIES, heads // kv_heads)
    each = _PAGE_TOKENS * (k_dim + v_dim) + queries * (k_dim + 2 * partial)
    spans = -(-limits.context // _SPAN_TOKENS)
    if threads == 1 or spans == 1:
        return each, 0
    rows = min(limits.batch, -(-_ITEMS_PER_THREAD * threads // kv_heads))
    return each, rows * heads * spans * partial


def _rope_tables(steps: Iterable[Step], tensors: Mapping[str, Tensor], limits: Limits) -> int:
    """Returns the bytes of cosines and sines, which layers that rotate alike share."""
    rotations = {
        (*step.weights, step.attrs["scale"]): tensors[str(step.weights[0])].parts[0].rows
        for step in steps
        if step.op == "Rope"
    }
    return sum(8 * limits.batch * (pairs + 1) for pairs in rotations.values())
