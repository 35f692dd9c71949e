"""Gives buffers their place and counts the bytes of every device."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moesaic import _pack
from moesaic.errors import PlacementError
from moesaic.partitioner.lowering import Program, Value
from moesaic.partitioner.lowering.program import RESERVED, RESULT
from moesaic.partitioner.machine import DeviceSpec
from moesaic.partitioner.plan.codecs import CODECS, align
from moesaic.partitioner.workspace import workspace_bytes
from moesaic.plan_format import (
    PAGE_TOKENS,
    Buffer,
    Cache,
    Device,
    KvType,
    Limits,
    Memory,
    Part,
    Step,
    Tensor,
)

__all__ = [
    "CUDA_RESERVE",
    "MemoryPlan",
    "cache_bytes",
    "check_budgets",
    "kv_bytes",
    "kv_row_bytes",
    "plan_memory",
    "scratch_bytes",
]

ALIGNMENT = 64
_KV_GROUP = 32  # values of a head that share a scale of q8_0

CUDA_RESERVE = 384 << 20
"""Bytes of a GPU that a process takes before it allocates anything: the driver's context, the code
of the kernels, and what allocations are rounded up by. Contexts of 150 to 450 MiB are common."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where everything lies: buffers in arenas, and bytes by device and purpose."""

    buffers: list[Buffer]
    devices: list[Device]
    memory: list[Memory]


@dataclass(frozen=True, slots=True)
class _Lifetime:
    """A value of `size` bytes, from the step that writes it to the last that reads it."""

    value: Value
    size: int
    first: int
    last: int


def plan_memory(
    program: Program, tensors: Mapping[str, Tensor], limits: Limits, specs: Sequence[DeviceSpec]
) -> MemoryPlan:
    """Returns the memory plan of a program.

    Args:
        program: The lowered program.
        tensors: The tensors of ``weights.bin`` by name.
        limits: Rows of a step, sequences and context.
        specs: The devices.
    """
    lifetimes = _lifetimes(program, limits)
    plan = MemoryPlan([], [], [])
    for spec in specs:
        own = [life for life in lifetimes if life.value.device == spec.name]
        offsets = _best_fit(own)
        arena = max(
            (offset + life.size for offset, life in zip(offsets, own, strict=True)), default=0
        )
        steps = [step for step in program.steps if step.device == spec.name]
        scratch = max((scratch_bytes(step, tensors, limits, program) for step in steps), default=0)
        plan.buffers.extend(map(_buffer, own, offsets, [limits] * len(own)))
        plan.devices.append(
            Device(spec.name, spec.provider, spec.budget, arena, scratch, spec.speed)
        )
        parts = {
            "weights": _weight_bytes(steps, tensors),
            "kv": kv_bytes(program.caches, limits, spec.name),
            "activations": arena + scratch,
            "staging": _staging_bytes(program, limits) if spec.is_cpu else 0,
            "reserve": _reserve(spec, program, tensors, limits),
        }
        plan.memory.append(Memory(device=spec.name, total=sum(parts.values()), **parts))
    return plan


def _reserve(
    spec: DeviceSpec, program: Program, tensors: Mapping[str, Tensor], limits: Limits
) -> int:
    if not spec.is_cpu:
        return CUDA_RESERVE
    return workspace_bytes(program, spec.name, tensors, limits, _pack.usable_cores())


def kv_bytes(caches: Iterable[Cache], limits: Limits, device: str) -> int:
    """Returns the bytes of a device's KV caches, whole pools."""
    caches = list(caches)
    sizes = cache_bytes(caches, limits)
    return sum(size for cache, size in zip(caches, sizes, strict=True) if cache.device == device)


def cache_bytes(caches: Sequence[Cache], limits: Limits) -> list[int]:
    """Returns the bytes of the pool of each of a plan's caches."""
    window = max((cache.window for cache in caches), default=0)
    return [
        _pages(limits, window if cache.window else 0)
        * PAGE_TOKENS
        * cache.kv_heads
        * (kv_row_bytes(cache.dtype, cache.k_dim) + kv_row_bytes(cache.dtype, cache.v_dim))
        for cache in caches
    ]


def kv_row_bytes(kv_type: KvType, dim: int) -> int:
    """Returns the bytes of one token's `dim` values of one head, scales included."""
    if kv_type == "q8_0":
        return -(-dim // _KV_GROUP) * (_KV_GROUP + 2)
    return dim * (4 if kv_type == "f32" else 2)


def scratch_bytes(
    step: Step, tensors: Mapping[str, Tensor], limits: Limits, program: Program
) -> int:
    """Returns the scratch that a step needs, by the formula of the plan format."""
    rows = _rows(program.values[step.outputs[0]].rows, limits)
    if step.op == "Linear":
        matrices = [tensors[name].parts[0] for name in step.weights[::2] if name]
        return _operands(rows, matrices)
    if step.op == "Experts":
        stack = tensors[str(step.weights[0])]
        parts = {part.role: part for part in stack.parts}
        slots = rows * int(step.attrs["used"])
        return (
            _operands(slots, [parts["gate"], parts["up"]])
            + _operands(slots, [parts["down"]])
            + align(4 * slots * parts["down"].rows, ALIGNMENT)
            + align(8 * slots, ALIGNMENT)
            + align(8 * (stack.count + 1), ALIGNMENT)
        )
    return 0


def check_budgets(
    plan: MemoryPlan,
    program: Program,
    tensors: Mapping[str, Tensor],
    limits: Limits,
    *,
    placed: bool = False,
) -> None:
    """Raises a `PlacementError` if a device needs more than its budget.

    It names the first node that does not fit, the bytes that are missing, and what would help.
    """
    for device, memory in zip(plan.devices, plan.memory, strict=True):
        if device.budget is None or memory.total <= device.budget:
            continue
        node = _first_to_exceed(program, tensors, limits, memory, device.budget)
        raise PlacementError(
            f"{device.name}: the plan needs {memory.total} bytes (weights {memory.weights}, KV "
            f"{memory.kv}, activations {memory.activations}, staging {memory.staging}), "
            f"{memory.total - device.budget} more than the budget of {device.budget}; the first "
            f"node that does not fit is {node}",
            hint=_what_helps(device.name, memory, limits, placed=placed),
        )


def _what_helps(device: str, memory: Memory, limits: Limits, *, placed: bool) -> str:
    option = "ram" if device == "cpu" else "vram"
    advice = f"raise {option} to {memory.total}"
    if memory.kv > memory.total // 10:
        advice += f", lower context ({limits.context}) or sequences ({limits.sequences})"
    if memory.activations > memory.total // 10:
        advice += f", lower batch ({limits.batch})"
    if placed:
        advice += f", or place less on {device}"
    return advice


def _first_to_exceed(
    program: Program, tensors: Mapping[str, Tensor], limits: Limits, memory: Memory, budget: int
) -> str:
    """Returns the node at which weights and KV, counted in order, exceed the budget."""
    used = memory.total - memory.weights - memory.kv
    seen: set[str] = set()
    node = program.steps[0].nodes[0]
    for step in program.steps:
        if step.device != memory.device:
            continue
        node = step.nodes[0]
        for name in step.weights:
            if name and name not in seen:
                seen.add(name)
                used += _owned_bytes(step, tensors[name])
        if "cache" in step.attrs:
            used += kv_bytes([program.caches[step.attrs["cache"]]], limits, memory.device)
        if used > budget:
            break
    return node


def _operands(rows: int, matrices: Sequence[Part]) -> int:
    """Returns the bytes of `rows` activations as integer and as float matrices read them."""
    floats = [CODECS[part.codec].is_float for part in matrices]
    cols = matrices[0].cols
    integer = 0 if all(floats) else align(rows * cols * 3 // 2, ALIGNMENT)
    return integer + (align(rows * cols * 4, ALIGNMENT) if any(floats) else 0)


def _weight_bytes(steps: Sequence[Step], tensors: Mapping[str, Tensor]) -> int:
    """Returns the bytes of the tensors that steps read, each counted once."""
    needed: dict[str, int] = {}
    for step in steps:
        for name in step.weights:
            if name:
                needed[name] = max(needed.get(name, 0), _owned_bytes(step, tensors[name]))
    return sum(needed.values())


def _owned_bytes(step: Step, tensor: Tensor) -> int:
    return tensor.bytes if step.experts is None else len(step.experts) * tensor.stride


def _staging_bytes(program: Program, limits: Limits) -> int:
    """Returns the bytes of the largest copy between devices, which passes through host memory."""
    copies = [step for step in program.steps if step.op == "Copy"]
    sizes = [sum(_size(program.values[name], limits) for name in step.inputs) for step in copies]
    return max(sizes, default=0)


def _pages(limits: Limits, window: int) -> int:
    """Returns the pages of a pool: for whole contexts, or for `window` tokens and a batch."""
    context = -(-limits.context // PAGE_TOKENS)
    seen = -(-(window + limits.batch) // PAGE_TOKENS) + 1
    return limits.sequences * (min(seen, context) if window else context)


def _rows(kind: str, limits: Limits) -> int:
    return limits.batch if kind == "tokens" else limits.logits_rows


def _size(value: Value, limits: Limits) -> int:
    return align(_rows(value.rows, limits) * 4 * value.width, ALIGNMENT)


def _lifetimes(program: Program, limits: Limits) -> list[_Lifetime]:
    starts = {f"{name}@{d}": -1 for name in RESERVED for d in {s.device for s in program.steps}}
    first = {name: i for i, step in enumerate(program.steps) for name in step.outputs}
    last = {name: i for i, step in enumerate(program.steps) for name in step.inputs}
    last[RESULT] = len(program.steps)
    return [
        _Lifetime(
            value=value,
            size=_size(value, limits),
            first=starts[name] if name in starts else first[name],
            last=last.get(name, first.get(name, -1)),
        )
        for name, value in program.values.items()
    ]


def _best_fit(lifetimes: Sequence[_Lifetime]) -> list[int]:
    """Returns an offset for each value, so that no two that live at once overlap.

    The largest come first; each takes the tightest gap between those it meets.
    """
    offsets: dict[int, int] = {}
    order = sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].size)
    for i in order:
        one = lifetimes[i]
        taken = sorted(
            (offset, offset + lifetimes[j].size)
            for j, offset in offsets.items()
            if lifetimes[j].first <= one.last and one.first <= lifetimes[j].last
        )
        offsets[i] = _tightest_gap(taken, one.size)
    return [offsets[i] for i in range(len(lifetimes))]


def _tightest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    best, best_gap, end = -1, -1, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best < 0 else best


def _buffer(life: _Lifetime, offset: int, limits: Limits) -> Buffer:
    value = life.value
    return Buffer(
        name=value.name,
        device=value.device,
        dtype=value.dtype,
        rows=value.rows,
        offset=offset,
        bytes_per_row=4 * value.width,
        max_rows=_rows(value.rows, limits),
    )
