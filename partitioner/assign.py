"""Chooses a device for every node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from moesaic.errors import PlacementError
from moesaic.partitioner.arch import PLACEMENT_KEY
from moesaic.partitioner.cost import DECODE, PREFILL, seconds, weight_bytes, work
from moesaic.partitioner.machine import CPU, DeviceSpec
from moesaic.partitioner.ops import OPERATORS
from moesaic.plan_format import Assignment

__all__ = ["Placement", "assign", "assignment_table"]

EXPERTS = "experts"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where nodes run.

    Attributes:
        nodes: Device of every node, by node name.
        owned: For Experts nodes that are split: the experts that each device owns. The node's
            device adds the partial results up.
    """

    nodes: Mapping[str, str]
    owned: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)


def assign(graph: ir.Graph, devices: Sequence[DeviceSpec]) -> Placement:
    """Places experts on the host and everything else on the CUDA device, if there is one.

    Args:
        graph: The model; each node's metadata names its placement class.
        devices: The host and at most one CUDA device.
    """
    accelerators = [device.name for device in devices if not device.is_cpu]
    if len(accelerators) > 1:
        raise PlacementError(
            f"devices: {len(accelerators)} CUDA devices, but only one is supported yet",
            hint=f"leave out all but one, like cpu,{accelerators[0]}=24GiB",
        )
    dense = accelerators[0] if accelerators else CPU
    return Placement({_name(node): CPU if _is_expert(node) else dense for node in graph})


def assignment_table(
    graph: ir.Graph, placement: Placement, devices: Sequence[DeviceSpec]
) -> list[Assignment]:
    """Returns the plan's table: one row a node, or one a device for a node that is split."""
    facts = {device.name: device.facts for device in devices}
    rows = []
    for node in graph:
        if OPERATORS[node.op_type].program is None:
            continue
        name = _name(node)
        for device, share in _shares(node, placement).items():
            row = Assignment(
                node=name,
                device=device,
                weight_bytes=round(share * weight_bytes(node)),
                decode_seconds=share * seconds(work(node, DECODE), facts[device]),
                prefill_seconds=share * seconds(work(node, PREFILL), facts[device]),
            )
            rows.append(row)
    return rows


def _shares(node: ir.Node, placement: Placement) -> dict[str, float]:
    """Returns the part of a node's experts on each device, 1 for a node that is not split."""
    name = _name(node)
    owned = placement.owned.get(name)
    if not owned:
        return {placement.nodes[name]: 1.0}
    total = sum(len(experts) for experts in owned.values())
    return {device: len(experts) / total for device, experts in owned.items()}


def _is_expert(node: ir.Node) -> bool:
    return node.metadata_props[PLACEMENT_KEY].split(".")[0] == EXPERTS


def _name(node: ir.Node) -> str:
    assert node.name is not None
    return node.name
