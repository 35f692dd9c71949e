"""Tables about a plan, shared by ``partition`` and ``inspect``."""

from collections import defaultdict

from moesaic.cli._render import out, print_table, size, thousands
from moesaic.plan_format import PlanFile

__all__ = ["plan_summary", "print_plan"]


def plan_summary(file: PlanFile) -> dict[str, object]:
    """The facts of a plan for ``--json``, without tensors and program."""
    return {
        "uuid": file.uuid,
        "source": file.source,
        "model": file.model,
        "limits": file.limits,
        "devices": file.devices,
        "memory": file.memory,
        "placement": file.assignment,
        "steps": len(file.program),
        "weights_bytes": sum(tensor.bytes for tensor in file.tensors),
    }


def print_plan(file: PlanFile) -> None:
    """Model, memory per device, and what runs where."""
    model, limits = file.model, file.limits
    experts = (
        f", {model.experts} experts of which {model.experts_used} per token"
        if model.experts
        else ""
    )
    out.print(
        f"[bold]{model.name}[/] ({model.architecture}): {thousands(model.parameters)} parameters, "
        f"{model.layers} layers{experts}"
    )
    types = ", ".join(f"{name} {count}" for name, count in file.source.types.items())
    out.print(f"from {file.source.file}, {size(file.source.bytes)}; tensors: {types}")
    out.print(
        f"context {limits.context}, sequences {limits.sequences}, batch {limits.batch}; "
        f"KV cache {', '.join(sorted({cache.dtype for cache in file.caches}))}\n"
    )
    print_table(
        "Memory",
        ("device", "weights", "KV cache", "activations", "staging", "reserve", "total"),
        [
            (
                m.device,
                *(size(n) for n in (m.weights, m.kv, m.activations, m.staging, m.reserve, m.total)),
            )
            for m in file.memory
        ],
    )
    print_table("Placement", ("nodes", "device", "count", "weights"), _placement_rows(file))


def _placement_rows(file: PlanFile) -> list[tuple[str, str, str, str]]:
    """Nodes of all layers together, as ``/layers.*/moe/experts``, in program order."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for item in file.assignment:
        entry = counts[_without_layer(item.node), item.device]
        entry[0] += 1
        entry[1] += item.weight_bytes
    return [
        (node, device, str(count), size(weights) if weights else "")
        for (node, device), (count, weights) in counts.items()
    ]


def _without_layer(node: str) -> str:
    return "/".join("layers.*" if part.startswith("layers.") else part for part in node.split("/"))
