"""From a graph and a wish to the contents of ``plan.json``; no file is touched."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import onnx_ir as ir

from moesaic.errors import PlanError
from moesaic.partitioner.assign import Placement, Problem, assign, check_usage
from moesaic.partitioner.lowering import Program, lower
from moesaic.partitioner.machine import CPU, DeviceSpec
from moesaic.partitioner.memory import MemoryPlan, cache_bytes, check_budgets, plan_memory
from moesaic.partitioner.predict import assignment_table, placed_tally, prediction
from moesaic.plan_format import (
    FORMAT,
    VERSION,
    KvType,
    Limits,
    ModelFacts,
    PlanFile,
    Source,
    Tensor,
    Wishes,
    plan_uuid,
    tensor_list_digest,
)
from moesaic.usage_format import Usage

__all__ = ["choose_limits", "make_plan", "with_tensors"]

DEFAULT_CONTEXT = 8192
DEFAULT_SEQUENCES = 8
DEFAULT_BATCH = 512
MAX_SEQUENCES = 4096
MAX_BATCH = 16384
MIN_LOGITS_ROWS = 32


def choose_limits(
    trained: int,
    context: int | None = None,
    sequences: int | None = None,
    batch: int | None = None,
) -> Limits:
    """Returns the limits of a plan, with defaults for what is None.

    Args:
        trained: Tokens of context that the model was trained for.
        context: Tokens of one sequence; default the smaller of `trained` and 8192.
        sequences: Sequences live at once; default 8.
        batch: Tokens of one step; default 512.
    """
    context = min(trained, DEFAULT_CONTEXT) if context is None else context
    sequences = DEFAULT_SEQUENCES if sequences is None else sequences
    batch = DEFAULT_BATCH if batch is None else batch
    hint = "the model was not trained for more" if context > trained else None
    _expect("context", context, trained, hint)
    _expect("sequences", sequences, MAX_SEQUENCES)
    _expect("batch", batch, MAX_BATCH)
    return Limits(context, sequences, batch, min(batch, max(sequences, MIN_LOGITS_ROWS)))


def make_plan(
    graph: ir.Graph,
    tensors: Sequence[Tensor],
    facts: ModelFacts,
    source: Source,
    limits: Limits,
    devices: Sequence[DeviceSpec],
    *,
    kv_type: KvType = "f16",
    place: Sequence[str] = (),
    usage: Usage | None = None,
    usage_path: str | os.PathLike[str] | None = None,
    notes: Sequence[str] = (),
    placement: Placement | None = None,
) -> PlanFile:
    """Assigns, lowers and plans memory. GPUs on which nothing is placed are left out.

    Args:
        graph: The model.
        tensors: Its weights.
        facts: What it is.
        source: The file it comes from.
        limits: What memory is planned for.
        devices: The devices and their budgets.
        kv_type: Element type of the caches; the graph's must fit it.
        place: ``REGEX=DEVICE`` rules, which overrule everything else.
        usage: How often each expert is chosen.
        usage_path: The file of the profile, for messages.
        notes: What else is remarkable about the placement.
        placement: Where nodes run; by default `assign` decides.

    Raises:
        PlacementError: A budget is too small, or a rule is wrong.
        PlanError: The usage profile is of another model.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    kv = _cache_sizes(graph, limits, kv_type)
    problem = Problem(graph, by_name, kv, devices, limits, kv_type, place, usage)
    if usage is not None:
        check_usage(usage, facts.architecture, problem.expert_counts, usage_path)
    lowered = _Lowered(problem)
    if placement is None:
        placement, found = assign(problem, lowered.needs)
        notes = [*notes, *found]
    made = lowered.of(placement)
    program, memory = made.program, made.memory
    check_budgets(memory, program, by_name, limits, placed=bool(place))
    tally = placed_tally(problem, placement)
    plan = PlanFile(
        format=FORMAT,
        version=VERSION,
        uuid="",
        model_sha256="",
        model=facts,
        source=source,
        devices=memory.devices,
        limits=limits,
        caches=program.caches,
        tensors=list(tensors),
        assignment=assignment_table(tally, placement),
        memory=memory.memory,
        buffers=memory.buffers,
        program=program.steps,
        wishes=Wishes({d.name: d.budget for d in devices}, list(place), usage),
        prediction=prediction(tally, notes),
    )
    return with_tensors(plan, tensors)


@dataclass(frozen=True, slots=True)
class _Made:
    """A placement, lowered."""

    placement: Placement
    program: Program
    memory: MemoryPlan


class _Lowered:
    """Lowers placements; that of the last one is kept."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._last: _Made | None = None

    def of(self, placement: Placement) -> _Made:
        """Returns the program and the memory of a placement."""
        problem, last = self._problem, self._last
        if last is None or (last.placement.nodes, last.placement.owned) != (
            placement.nodes,
            placement.owned,
        ):
            program = lower(problem.graph, placement, problem.kv_type)
            used = {CPU, *(step.device for step in program.steps)}
            devices = [device for device in problem.devices if device.name in used]
            memory = plan_memory(program, problem.tensors, problem.limits, devices)
            last = self._last = _Made(placement, program, memory)
        return last

    def needs(self, placement: Placement) -> Mapping[str, int]:
        """Returns the bytes that a placement needs, by device on which something is placed."""
        return {memory.device: memory.total for memory in self.of(placement).memory.memory}


def _cache_sizes(graph: ir.Graph, limits: Limits, kv_type: KvType) -> dict[str, int]:
    """Returns the bytes of the cache of each node that has one."""
    program = lower(graph, Placement({str(node.name): CPU for node in graph}), kv_type)
    sizes = cache_bytes(program.caches, limits)
    return {
        step.nodes[0]: sizes[step.attrs["cache"]] for step in program.steps if "cache" in step.attrs
    }


def with_tensors(plan: PlanFile, tensors: Sequence[Tensor]) -> PlanFile:
    """Returns the plan with these tensors and the uuid that follows from them."""
    uuid = str(plan_uuid(tensor_list_digest(tensors)))
    return msgspec.structs.replace(plan, tensors=list(tensors), uuid=uuid)


def _expect(name: str, value: int, most: int, hint: str | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise PlanError(f"{name}: expected 1 to {most} but got {value!r}", hint=hint)
