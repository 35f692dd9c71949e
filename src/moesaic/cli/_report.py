"""Reports about a plan, shared by ``partition`` and ``inspect``."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from moesaic.cli._render import note, print_facts, print_table, share, size, thousands
from moesaic.errors import RequestError
from moesaic.plan_facts import CLASSES, class_of, group_nodes, layer_ranges, weights_by_class
from moesaic.plan_format import (
    Assignment,
    Cache,
    Device,
    DeviceSeconds,
    Facts,
    PlanFile,
    Prediction,
)

__all__ = [
    "check_plot",
    "plan_summary",
    "print_memory",
    "print_plan",
    "print_program",
    "print_tensors",
    "print_why",
    "reasons",
    "select",
    "why_rows",
    "write_plot",
]


def plan_summary(file: PlanFile) -> dict[str, object]:
    """The facts of a plan for ``--json``, without tensors and program."""
    return {
        "kind": "plan",
        "format": file.format,
        "version": file.version,
        "uuid": file.uuid,
        "model_sha256": file.model_sha256,
        "source": file.source,
        "model": file.model,
        "limits": file.limits,
        "kv_types": _kv_types(file.caches),
        "devices": file.devices,
        "memory": file.memory,
        "weights_by_class": weights_by_class(file),
        "placement": file.assignment,
        "prediction": file.prediction,
        "wishes": file.wishes,
        "steps": len(file.program),
        "tensor_count": len(file.tensors),
        "weights_bytes": _weights_bytes(file),
    }


def print_plan(file: PlanFile) -> None:
    """Model, memory per device, and what runs where."""
    print_facts(_facts(file))
    print_memory(file)
    _print_placement(file)
    _print_speed(file)


def print_memory(file: PlanFile, title: str = "Memory (planned)") -> None:
    """Bytes of every device by purpose, and of its weights by class."""
    budgets = {device.name: device.budget for device in file.devices}
    columns = "device", "weights", "KV cache", "activations", "staging", "reserve", "total"
    print_table(
        title,
        (*columns, "budget", "used"),
        [
            (
                m.device,
                *(size(n) for n in (m.weights, m.kv, m.activations, m.staging, m.reserve, m.total)),
                *_budget(m.total, budgets.get(m.device)),
            )
            for m in file.memory
        ],
    )
    print_table(
        "Weights",
        ("device", *CLASSES),
        [
            (device, *(size(classes[name]) for name in CLASSES))
            for device, classes in weights_by_class(file).items()
        ],
    )


def _print_placement(file: PlanFile) -> None:
    print_table(
        "Placement",
        ("nodes", "device", "count", "weights", "layers"),
        [
            (
                group.name,
                group.device,
                str(group.count),
                size(group.weight_bytes) if group.weight_bytes else "",
                layer_ranges(group.layers),
            )
            for group in group_nodes((row, "") for row in file.assignment)
        ],
        left=("device", "layers"),
    )


def _print_speed(file: PlanFile) -> None:
    """What the cost model expects; nothing of it was measured with this model."""
    prediction = file.prediction
    if prediction is None:
        print_facts([("speed", "not predicted: the speed of the devices is not known")])
        return
    seconds = {device.device: device for device in prediction.devices}
    columns = "device", "ms a token", "ms a chunk", "read GB/s", "int8 Gop/s", "float Gop/s"
    print_table(
        "Speed (predicted)",
        (*columns, "speeds"),
        [(d.name, *_times(seconds.get(d.name)), *_rates(d.facts)) for d in file.devices],
        left=("speeds",),
    )
    print_facts(_speeds(prediction))


def _times(seconds: DeviceSeconds | None) -> tuple[str, str]:
    if seconds is None:
        return "", ""
    return f"{1e3 * seconds.decode:.3f}", f"{1e3 * seconds.prefill:.3f}"


def _rates(facts: Facts | None) -> tuple[str, ...]:
    if facts is None:
        return "", "", "", "not known"
    rates = facts.read_bandwidth, facts.int8_rate, facts.float_rate
    return (*(f"{rate / 1e9:.1f}" for rate in rates), facts.source)


def _speeds(prediction: Prediction) -> list[tuple[str, str]]:
    """Tokens a second, what hand-overs between devices cost, and what is remarkable."""
    p = prediction
    handovers = (
        f"{p.handovers} a step, {1e3 * p.handover_decode_seconds:.3f} ms a token, "
        f"{1e3 * p.handover_prefill_seconds:.3f} ms a chunk"
    )
    return [
        ("generation", f"{p.decode_tokens_per_second:.1f} tokens/s after {p.context} tokens"),
        ("prompt", f"{p.prefill_tokens_per_second:.1f} tokens/s in chunks of {p.chunk}"),
        ("hand-overs", handovers if p.handovers else ""),
        *(("note", text) for text in p.notes),
    ]


def reasons(file: PlanFile, pattern: str | None) -> list[tuple[Assignment, str]]:
    """Returns the rows of the assignment whose node matches, each with its reason."""
    matches = select(pattern)
    return [
        (row, row.why or "no reason was recorded") for row in file.assignment if matches(row.node)
    ]


def print_why(rows: Iterable[tuple[Assignment, str]], *, grouped: bool) -> None:
    """Why nodes run where they run: node by node, or the nodes of a class together."""
    if grouped:
        print_table(
            "Why nodes run where they run",
            ("class", "device", "layers", "weights", "why"),
            [
                (g.name, g.device, layer_ranges(g.layers), size(g.weight_bytes), g.why)
                for g in group_nodes(rows, class_of)
            ],
            left=("device", "layers", "why"),
        )
        return
    print_table(
        "Why nodes run where they run",
        ("node", "device", "weights", "why"),
        [(row.node, row.device, size(row.weight_bytes), why) for row, why in rows],
        left=("device", "why"),
    )


def print_tensors(file: PlanFile, pattern: str | None) -> None:
    """The tensors of ``weights.bin``."""
    matches = select(pattern)
    print_table(
        "Tensors of weights.bin",
        ("tensor", "bytes", "offset", "count", "stride", "xxh3", "parts"),
        [
            (
                t.name,
                *map(str, (t.bytes, t.offset, t.count, t.stride)),
                t.xxh3,
                ", ".join(f"{p.role} {p.codec} [{p.rows}, {p.cols}]" for p in t.parts),
            )
            for t in file.tensors
            if matches(t.name)
        ],
        left=("parts",),
    )


def print_program(file: PlanFile, pattern: str | None) -> None:
    """The steps of the program, in order; a pattern chooses by the names of their nodes."""
    matches = select(pattern)
    print_table(
        "Program",
        ("step", "op", "device", "nodes", "inputs", "outputs", "weights", "experts"),
        [
            (
                str(index),
                step.op,
                step.device,
                *(", ".join(names) for names in (step.nodes, step.inputs, step.outputs)),
                ", ".join("-" if name is None else name for name in step.weights),
                "" if step.experts is None else layer_ranges(step.experts),
            )
            for index, step in enumerate(file.program)
            if any(map(matches, step.nodes))
        ],
        left=("op", "device", "nodes", "inputs", "outputs", "weights", "experts"),
    )


def check_plot(path: Path) -> None:
    """Raises now what `write_plot` would raise because of the name, or for want of matplotlib."""
    from moesaic.plot import check_target

    check_target(path)


def write_plot(file: PlanFile, path: Path) -> None:
    """Draws the plan and says so."""
    from moesaic.plot import plot_plan

    plot_plan(file, path)
    note(f"wrote {path}")


def select(pattern: str | None) -> Callable[[str], bool]:
    """Returns what tells whether a name matches a pattern anywhere; without one every name does.

    Raises:
        RequestError: It is not a regular expression.
    """
    try:
        compiled = re.compile(pattern or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise RequestError(
            f"pattern: {pattern!r} is not a regular expression: {error}",
            hint="write for instance 'layers[.]3/' or 'experts'",
        ) from None
    return lambda name: compiled.search(name) is not None


def _facts(file: PlanFile) -> list[tuple[str, str]]:
    model, limits, source = file.model, file.limits, file.source
    experts = f"{model.experts} experts, {model.experts_used} a token" if model.experts else "dense"
    layers = f"{model.layers} layers of width {model.hidden_size}"
    parents = ", ".join(str(parent.name or parent.url) for parent in source.origin.parents)
    return [
        ("model", f"{model.name} ({model.architecture})"),
        ("size", f"{thousands(model.parameters)} parameters, {layers}, {experts}"),
        ("vocabulary", f"{model.vocab_size} tokens; trained for {model.context_length} of context"),
        ("source", f"{source.file}, {size(source.bytes)}"),
        ("tensor types", ", ".join(f"{name} {count}" for name, count in source.types.items())),
        ("licence", source.origin.license or ""),
        ("made from", parents),
        (
            "limits",
            f"context {limits.context}, sequences {limits.sequences}, batch {limits.batch}",
        ),
        ("KV cache", _caches(file.caches)),
        ("devices", "; ".join(map(_device, file.devices))),
        ("weights", f"{size(_weights_bytes(file))} in {len(file.tensors)} tensors"),
        ("uuid", file.uuid),
    ]


def _device(device: Device) -> str:
    budget = "no budget" if device.budget is None else f"budget {size(device.budget)}"
    return f"{device.name} ({device.provider}, {budget})"


def _caches(caches: list[Cache]) -> str:
    windows = [cache.window for cache in caches if cache.window]
    text = f"{' and '.join(_kv_types(caches))}, {len(caches)} layers"
    return f"{text}, {len(windows)} of them windowed to {max(windows)}" if windows else text


def _kv_types(caches: list[Cache]) -> list[str]:
    return sorted({cache.dtype for cache in caches})


def _weights_bytes(file: PlanFile) -> int:
    return sum(tensor.bytes for tensor in file.tensors)


def _budget(used: int, budget: int | None) -> tuple[str, str]:
    return ("none", "") if budget is None else (size(budget), share(used, budget))


def why_rows(rows: Iterable[tuple[Assignment, str]]) -> list[dict[str, object]]:
    """The same for ``--json``."""
    return [msgspec.to_builtins(row) | {"why": why} for row, why in rows]
