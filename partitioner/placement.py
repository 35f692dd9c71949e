"""Where nodes run: what assignment decides and lowering carries out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where nodes run.

    Attributes:
        nodes: Device of every node, by node name.
        owned: For Experts nodes that are split: the experts that each device owns. The node's
            device adds the partial results up.
        why: The rule that put a node on a device, by (node, device).
    """

    nodes: Mapping[str, str]
    owned: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    why: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def devices(self, node: str) -> list[str]:
        """Returns the devices that run a node, or a part of it."""
        owned = self.owned.get(node)
        return [self.nodes[node]] if not owned else list(owned)
