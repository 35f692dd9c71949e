"""The front door of this half: a model file becomes a plan, or a plan is placed anew."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx_ir as ir

from moesaic.errors import PlanError
from moesaic.partitioner.arch import Model, build_model
from moesaic.partitioner.assign.rules import rule_device
from moesaic.partitioner.gguf import GgufFile, read_gguf
from moesaic.partitioner.gguf.origin import read_origin
from moesaic.partitioner.gguf.tokenizer import TokenizerFiles, convert_tokenizer
from moesaic.partitioner.machine import CPU, DeviceSpec, parse_devices
from moesaic.partitioner.plan.card import put_card
from moesaic.partitioner.plan.opened import Plan
from moesaic.partitioner.plan.pack import Progress, pack_weights
from moesaic.partitioner.plan.sources import weights_bytes
from moesaic.partitioner.plan.writer import (
    MODEL_FILE,
    PLAN_FILE,
    WEIGHTS_FILE,
    check_target,
    encode_graph,
    encode_plan,
    new_directory,
    replace_plan,
    require_space,
    writing,
)
from moesaic.partitioner.planning import choose_limits, make_plan, with_tensors
from moesaic.plan_file import check_weights, file_inside, read_plan, reading
from moesaic.plan_format import KV_TYPES, KvType, PlanFile, Source
from moesaic.small_file import read_small
from moesaic.usage_format import Usage, read_usage

__all__ = ["partition"]

MAX_MODEL_BYTES = 256 << 20  # model.onnx keeps its weights outside
StrPath = str | os.PathLike[str]
_SLACK_BYTES = 1 << 20  # of a plan's disk space: folder entries, hashes not known yet


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the caller asked for; None where the default, or the old plan's value, holds."""

    devices: str | None
    vram: int | str | None
    ram: int | str | None
    context: int | None
    sequences: int | None
    batch: int | None
    kv_type: KvType | None
    place: list[str] | None
    usage: StrPath | None


def partition(
    model: StrPath,
    output: StrPath | None = None,
    *,
    devices: str | None = None,
    vram: int | str | None = None,
    ram: int | str | None = None,
    context: int | None = None,
    sequences: int | None = None,
    batch: int | None = None,
    kv_type: str | None = None,
    place: str | Sequence[str] | None = None,
    usage: StrPath | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Turns a GGUF file into a plan directory, or places an existing plan anew.

    Given a plan directory, only its ``plan.json`` is replaced (and ``model.onnx`` if `kv_type`
    changes from or to ``f32``); what is not asked for stays as it was.

    Args:
        model: A GGUF file or a plan directory.
        output: The directory to write. May be left out for a plan or a dry run.
        devices: Devices and budgets to plan for, like ``cpu,cuda:0=24GiB``; they need not be here.
            Default is the host, and ``cuda:0`` if `vram` is given. Without a budget a GPU gets
            everything but the experts.
        vram: Bytes to use on CUDA devices for which `devices` gives no budget, like ``8GiB``. The
            driver's share counts.
        ram: Bytes to use on the host.
        context: Tokens of one sequence; default what the model was trained for, at most 8192.
        sequences: Sequences live at once; default 8.
        batch: Tokens of one step, the prefill chunk; default 512.
        kv_type: Type of the KV cache: ``f16`` (default), ``f32``, ``bf16`` or ``q8_0``.
        place: Rules ``REGEX=DEVICE`` that put the nodes whose name the expression is found in on a
            device; the last that matches wins. An empty one drops those of the old plan.
        usage: A profile recorded by ``moesaic run --record-usage``: the most used experts are the
            first on the GPU. Empty drops that of the old plan.
        force: Replace an existing plan at `output`.
        dry_run: Plan and check everything, but write nothing.
        progress: Called with (bytes done, bytes in all) while weights are packed.

    Raises:
        ModelError: The model file is malformed or not supported.
        PlacementError: The model does not fit the devices, or a device or a rule is wrong.
        PlanError: An argument or the output is wrong, or the plan cannot be written.
    """
    rules = [place] if isinstance(place, str) else place
    wishes = _Wishes(
        *(devices, vram, ram, context, sequences, batch, _kv_type(kv_type)),
        place=None if rules is None else [rule for rule in rules if rule],
        usage=usage,
    )
    source = Path(model)
    if os.path.isdir(source):  # unlike Path's method, False where it may not look
        return _place_anew(source, output, wishes, dry_run=dry_run)
    target = None if output is None else Path(output)
    if target is not None:
        _check_output(source, target, force=force)
    elif not dry_run:
        raise PlanError("no output was given", hint="give the plan directory to write")
    gguf = read_gguf(source)
    built = build_model(gguf, wishes.kv_type or "f16")
    files = _prepare(gguf, built, _plan_model(gguf, built, wishes))
    free = None if target is None else require_space(target, files.bytes)
    plan = files.plan
    if not dry_run and target is not None:
        plan = _write(built, files, target, force=force, progress=progress)
    return Plan(target, plan, disk_bytes=files.bytes, disk_free=free)


def _check_output(source: Path, target: Path, *, force: bool) -> None:
    check_target(target, force=force)
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(target)):
        raise PlanError(f"{target} holds the model itself", hint="choose another output")


def _plan_model(gguf: GgufFile, built: Model, wishes: _Wishes) -> PlanFile:
    types = Counter(info.type.name for info in gguf.tensors.values())
    source = Source(
        file=gguf.path.name.encode(errors="replace").decode(),
        bytes=gguf.nbytes,
        types=dict(types.most_common()),
        origin=read_origin(gguf.metadata),
    )
    limits = choose_limits(
        built.facts.context_length, wishes.context, wishes.sequences, wishes.batch
    )
    devices = parse_devices(wishes.devices, wishes.vram, wishes.ram)
    return make_plan(
        built.graph.graph,
        built.tensors,
        built.facts,
        source,
        limits,
        devices,
        kv_type=wishes.kv_type or "f16",
        place=wishes.place or [],
        usage=_read_usage(wishes.usage, None),
        usage_path=wishes.usage,
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """What a plan directory holds besides its weights, and the bytes of all of it."""

    plan: PlanFile
    graph: bytes
    tokenizer: TokenizerFiles
    bytes: int


def _prepare(gguf: GgufFile, built: Model, plan: PlanFile) -> _Files:
    """Makes everything but the weights; whatever the model file lacks for it is an error."""
    tokenizer = convert_tokenizer(gguf.metadata)
    graph, digest = encode_graph(built.graph)
    plan = msgspec.structs.replace(plan, model_sha256=digest)
    texts = len(graph), len(encode_plan(plan)), len(tokenizer.tokenizer_text.encode())
    size = weights_bytes(built.tensors) + sum(texts) + _SLACK_BYTES
    return _Files(plan, graph, tokenizer, size)


def _write(
    built: Model, files: _Files, target: Path, *, force: bool, progress: Progress | None
) -> PlanFile:
    """Writes the directory and returns the plan as written."""
    with new_directory(target, force=force) as folder:
        weights = folder / WEIGHTS_FILE
        packed = pack_weights(built.sources, weights, progress, target=target / WEIGHTS_FILE)
        plan = with_tensors(files.plan, packed)
        with writing(target):
            files.tokenizer.write(folder)
            (folder / MODEL_FILE).write_bytes(files.graph)
            (folder / PLAN_FILE).write_bytes(encode_plan(plan))
            put_card(folder, plan, before=target)
    return plan


def _place_anew(folder: Path, output: StrPath | None, wishes: _Wishes, *, dry_run: bool) -> Plan:
    """Replaces the ``plan.json`` of a plan, and its graph if that changes; not the weights."""
    old = read_plan(folder)
    if output is not None and os.path.realpath(output) != os.path.realpath(folder):
        raise PlanError(
            f"{folder} is a plan already and is placed anew where it is, not in {output}",
            hint="leave out the output, or copy the folder first",
        )
    check_weights(folder, old)
    before = old.caches[0].dtype if old.caches else "f16"
    kv_type = wishes.kv_type or before
    graph, intact = _read_graph(folder, old.model_sha256, before)
    changed = _graph_type(kv_type) != _graph_type(before)
    if changed:
        _retype_caches(graph, kv_type)
    devices = _devices_anew(old, wishes)
    place, dropped = _rules_anew(old, wishes, devices)
    plan = make_plan(
        graph.graph,
        old.tensors,
        old.model,
        old.source,
        choose_limits(
            old.model.context_length,
            _either(wishes.context, old.limits.context),
            _either(wishes.sequences, old.limits.sequences),
            _either(wishes.batch, old.limits.batch),
        ),
        devices,
        kv_type=kv_type,
        place=place,
        usage=_read_usage(wishes.usage, old.wishes.usage),
        usage_path=wishes.usage,
        notes=[f"place: {rule!r} no longer holds, the plan has no such device" for rule in dropped],
    )
    rewritten = None if intact and not changed else encode_graph(graph)
    digest = old.model_sha256 if rewritten is None else rewritten[1]
    plan = msgspec.structs.replace(plan, model_sha256=digest)
    if not dry_run:
        replace_plan(folder, plan, None if rewritten is None else rewritten[0])
    return Plan(folder, plan)


def _either(wish: int | None, otherwise: int) -> int:
    return otherwise if wish is None else wish


def _devices_anew(old: PlanFile, wishes: _Wishes) -> list[DeviceSpec]:
    """Returns the devices asked for, else those of the old plan with the budgets asked for."""
    if wishes.devices is not None:
        return parse_devices(wishes.devices, wishes.vram, wishes.ram)
    recorded = dict(old.wishes.devices) or {d.name: d.budget for d in old.devices}
    if wishes.vram is not None and set(recorded) == {CPU}:
        recorded["cuda:0"] = None
    items = [
        name
        if budget is None or (wishes.ram if name == CPU else wishes.vram) is not None
        else f"{name}={budget}"
        for name, budget in recorded.items()
    ]
    return parse_devices(",".join(items), wishes.vram, wishes.ram)


def _rules_anew(
    old: PlanFile, wishes: _Wishes, devices: Sequence[DeviceSpec]
) -> tuple[list[str], list[str]]:
    """Returns the rules asked for, else those of the old plan; and those of it that are dropped.

    They are dropped if their device is no longer there.
    """
    if wishes.place is not None:
        return wishes.place, []
    names = {device.name for device in devices}
    kept = [rule for rule in old.wishes.place if rule_device(rule) in names]
    return kept, [rule for rule in old.wishes.place if rule not in kept]


def _read_usage(path: StrPath | None, otherwise: Usage | None) -> Usage | None:
    if path is None:
        return otherwise
    return read_usage(Path(path)) if str(path) else None


def _read_graph(folder: Path, sha256: str, kv_type: KvType) -> tuple[ir.Model, bool]:
    """Reads the graph of a plan, and tells whether its file is the one that the plan names.

    A crash while `replace_plan` changed the caches' type may have left the graph with the new type
    beside the old plan: given the plan's type, it is the plan's graph again.
    """
    path = file_inside(folder, MODEL_FILE)
    with reading(path):
        data = read_small(path, MAX_MODEL_BYTES)
    if hashlib.sha256(data).hexdigest() == sha256:
        return ir.load(path), True
    try:
        graph = ir.load(path)
        _retype_caches(graph, kv_type)
        digest = encode_graph(graph)[1]
    except Exception:  # whatever readers of ONNX make of a file that may be anything
        digest = ""
    if digest != sha256:
        raise PlanError(
            f"{path} is not the graph that this plan was written with",
            hint="partition the model file again",
        )
    return graph, False


def _kv_type(name: str | None) -> KvType | None:
    for kv_type in KV_TYPES:
        if kv_type == name:
            return kv_type
    if name is not None:
        known = ", ".join(KV_TYPES)
        raise PlanError(
            f"kv_type: expected one of {known} but got {name!r}", hint=f"give one of {known}"
        )
    return None


def _graph_type(kv_type: KvType) -> ir.DataType:
    """Returns the type of past and present in the graph: that of plain ONNX tools."""
    return ir.DataType.FLOAT if kv_type == "f32" else ir.DataType.FLOAT16


def _retype_caches(graph: ir.Model, kv_type: KvType) -> None:
    for value in [*graph.graph.inputs, *graph.graph.outputs]:
        if str(value.name).startswith(("past_key_values.", "present.")):
            value.type = ir.TensorType(_graph_type(kv_type))
