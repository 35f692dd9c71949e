"""What is to be placed: the model, the devices, and what the user wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.assign.usage import expert_odds
from moesaic.partitioner.cost import Loads
from moesaic.partitioner.machine import DeviceSpec
from moesaic.partitioner.ops import OPERATORS
from moesaic.partitioner.tally import Tally
from moesaic.plan_format import KvType, Limits, Tensor
from moesaic.usage_format import Usage

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be placed.

    Attributes:
        graph: The model; each node's metadata names its placement class.
        tensors: The tensors of ``weights.bin``, by name.
        kv: Bytes of the cache of each node that has one, by node name.
        devices: The devices, the host first.
        limits: Rows of a step, sequences and context.
        kv_type: Element type of the caches.
        rules: ``REGEX=DEVICE``, the later ones win.
        usage: How often each expert is chosen, None if nobody counted.
    """

    graph: ir.Graph
    tensors: Mapping[str, Tensor]
    kv: Mapping[str, int]
    devices: Sequence[DeviceSpec]
    limits: Limits
    kv_type: KvType = "f16"
    rules: Sequence[str] = ()
    usage: Usage | None = None

    @property
    def gpus(self) -> list[DeviceSpec]:
        """The devices besides the host."""
        return [device for device in self.devices if not device.is_cpu]

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes that take part in the program."""
        return [node for node in self.graph if OPERATORS[node.op_type].program is not None]

    @property
    def expert_counts(self) -> dict[str, int]:
        """The number of experts of each Experts node."""
        return {
            str(node.name): node.attributes["experts"].value
            for node in self.nodes
            if node.op_type == "Experts"
        }

    def tally(self) -> Tally:
        """Returns the predicted time of everything on the host."""
        odds = expert_odds(self.nodes, self.usage) if self.usage else {}
        return Tally(self.graph, self.devices, Loads.of(self.limits, self.kv_type), odds)
