"""From a graph and a wish to the contents of ``plan.json``; no file is touched."""

from collections.abc import Sequence

import msgspec
import onnx_ir as ir

from moesaic.errors import PlanError
from moesaic.partitioner.assign import Placement, assign, assignment_table
from moesaic.partitioner.lowering import lower
from moesaic.partitioner.machine import DeviceSpec
from moesaic.partitioner.memory import check_budgets, plan_memory
from moesaic.plan_format import (
    FORMAT,
    VERSION,
    KvType,
    Limits,
    ModelFacts,
    PlanFile,
    Source,
    Tensor,
    plan_uuid,
    tensor_list_digest,
)

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
    placement: Placement | None = None,
) -> PlanFile:
    """Assigns, lowers and plans memory.

    Args:
        graph: The model.
        tensors: Its weights.
        facts: What it is.
        source: The file it comes from.
        limits: What memory is planned for.
        devices: The devices and their budgets.
        kv_type: Element type of the caches; the graph's must fit it.
        placement: Where nodes run; by default `assign` decides.

    Raises:
        PlacementError: A budget is too small.
    """
    placement = placement or assign(graph, devices)
    program = lower(graph, placement, kv_type)
    by_name = {tensor.name: tensor for tensor in tensors}
    memory = plan_memory(program, by_name, limits, devices)
    check_budgets(memory, program, by_name, limits)
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
        assignment=assignment_table(graph, placement, devices),
        memory=memory.memory,
        buffers=memory.buffers,
        program=program.steps,
    )
    return with_tensors(plan, tensors)


def with_tensors(plan: PlanFile, tensors: Sequence[Tensor]) -> PlanFile:
    """Returns the plan with these tensors and the uuid that follows from them."""
    uuid = str(plan_uuid(tensor_list_digest(tensors)))
    return msgspec.structs.replace(plan, tensors=list(tensors), uuid=uuid)


def _expect(name: str, value: int, most: int, hint: str | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise PlanError(f"{name}: expected 1 to {most} but got {value!r}", hint=hint)
