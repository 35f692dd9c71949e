"""A plan as the partitioner hands it out: what was decided, and why."""

import os
from pathlib import Path

from moesaic.errors import PlanError
from moesaic.plan_file import read_plan
from moesaic.plan_format import Assignment, Limits, Memory, ModelFacts, PlanFile

__all__ = ["Plan"]


class Plan:
    """A plan directory, or with `dry_run` the plan that would be written.

    Attributes:
        path: The directory, None for a dry run without an output.
        file: The content of ``plan.json``.
        disk_bytes: Bytes that writing the directory takes at most, None for a plan read or placed
            anew.
        disk_free: Bytes that were free there before.
    """

    def __init__(
        self,
        path: Path | None,
        file: PlanFile,
        *,
        disk_bytes: int | None = None,
        disk_free: int | None = None,
    ) -> None:
        self.path = path
        self.file = file
        self.disk_bytes = disk_bytes
        self.disk_free = disk_free

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "Plan":
        """Opens a plan directory for reading; its weights are not looked at.

        Raises:
            PlanError: ``plan.json`` is missing, malformed, or of another version.
        """
        return Plan(Path(path), read_plan(path))

    def __repr__(self) -> str:
        return f"Plan({str(self.path)!r})" if self.path else "Plan(not written)"

    @property
    def facts(self) -> ModelFacts:
        """What the model is."""
        return self.file.model

    @property
    def limits(self) -> Limits:
        """What memory is planned for."""
        return self.file.limits

    @property
    def memory(self) -> list[Memory]:
        """Planned bytes, by device."""
        return self.file.memory

    @property
    def placement(self) -> dict[str, str]:
        """Device of every node; of a split node, the devices joined by ``+``."""
        devices: dict[str, str] = {}
        for row in self.file.assignment:
            devices[row.node] = "+".join(filter(None, [devices.get(row.node), row.device]))
        return devices

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(tensor.bytes for tensor in self.file.tensors)

    @property
    def summary(self) -> str:
        """A few lines for people: the model, its limits, and the bytes of every device."""
        facts, limits = self.facts, self.limits
        lines = [
            (
                f"{facts.name}: {facts.architecture}, {facts.parameters / 1e9:.2f} B parameters, "
                f"{facts.layers} layers, {facts.experts} experts"
            ),
            f"context {limits.context}, sequences {limits.sequences}, batch {limits.batch}",
        ]
        lines += [
            f"{m.device}: {m.total / 2**20:.1f} MiB (weights {m.weights / 2**20:.1f}, "
            f"KV {m.kv / 2**20:.1f}, activations {m.activations / 2**20:.1f})"
            for m in self.memory
        ]
        return "\n".join(lines)

    def explain(self, node: str) -> str:
        """Returns why a node runs where it runs, in a sentence or two.

        Raises:
            PlanError: The plan has no such node.
        """
        rows = [row for row in self.file.assignment if row.node == node]
        if not rows:
            raise PlanError(f"the plan has no node {node!r}", hint="see the names with inspect")
        return "; ".join(map(self._reason, rows))

    def _reason(self, row: Assignment) -> str:
        cost = f"{row.decode_seconds * 1e6:.3g} µs a token predicted"
        why = row.why or "no reason was recorded"
        return f"{row.node} runs on {row.device}: {why}; {row.weight_bytes} weight bytes, {cost}"
