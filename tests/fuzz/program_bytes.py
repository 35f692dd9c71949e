"""Writes programs as the byte strings that ``program_bytes.h`` reads: seeds of ``fuzz_program``."""

import struct
from collections.abc import Sequence
from typing import Any

from moesaic.plan_format import PlanFile, Step
from moesaic.runtime import _native

CODECS = [str(row["name"]) for row in _native.codecs()]


def text(value: str) -> bytes:
    data = value.encode()[:255]
    return bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def attribute(value: Any) -> bytes:
    if isinstance(value, bool):
        return bytes([2, value])
    if isinstance(value, int):
        return b"\0" + numbers(value)
    if isinstance(value, float):
        return b"\1" + struct.pack("<d", value)
    return b"\3" + text(value)


def indices(names: Sequence[str | None], known: Sequence[str]) -> bytes:
    found = [-1 if name is None else known.index(name) for name in names]
    return bytes([len(found)]) + struct.pack(f"<{len(found)}h", *found)


def program_bytes(plan: PlanFile) -> bytes:
    """Returns the bytes of a plan's program."""
    limits = plan.limits
    devices = [device.name for device in plan.devices]
    out = numbers(
        plan.model.vocab_size, limits.context, limits.sequences, limits.batch, limits.logits_rows
    )
    out += struct.pack("<H", len(devices))
    for device in plan.devices:
        out += text(device.name) + text(device.provider)
        out += numbers(device.arena_bytes, device.scratch_bytes)
    out += struct.pack("<H", len(plan.tensors))
    for tensor in plan.tensors:
        out += text(tensor.name)
        out += numbers(tensor.offset, tensor.bytes, tensor.count, tensor.stride)
        out += bytes([len(tensor.parts)])
        for part in tensor.parts:
            out += text(part.role) + numbers(part.offset) + bytes([CODECS.index(part.codec)])
            out += numbers(part.rows, part.cols)
    out += struct.pack("<H", len(plan.caches))
    for cache in plan.caches:
        out += struct.pack("<ih", cache.layer, devices.index(cache.device))
        out += numbers(cache.window, cache.kv_heads, cache.k_dim, cache.v_dim)
        out += bytes([("f16", "f32", "bf16", "q8_0").index(cache.dtype)])
    out += struct.pack("<H", len(plan.buffers))
    for buffer in plan.buffers:
        out += text(buffer.name) + struct.pack("<h", devices.index(buffer.device))
        out += bytes([buffer.dtype == "i32", buffer.rows == "wanted"])
        out += numbers(buffer.offset, buffer.bytes_per_row, buffer.max_rows)
    out += struct.pack("<H", len(plan.program))
    names = [buffer.name for buffer in plan.buffers], [tensor.name for tensor in plan.tensors]
    return out + b"".join(_step(step, devices, *names) for step in plan.program)


def _step(step: Step, devices: list[str], buffers: list[str], tensors: list[str]) -> bytes:
    out = text(step.op) + text(step.nodes[0]) + struct.pack("<h", devices.index(step.device))
    out += bytes([len(step.attrs)])
    out += b"".join(text(name) + attribute(value) for name, value in step.attrs.items())
    out += indices(step.inputs, buffers) + indices(step.outputs, buffers)
    out += indices(step.weights, tensors)
    if step.experts is None:
        return out + b"\0"
    owned = step.experts
    return out + bytes([1, len(owned)]) + struct.pack(f"<{len(owned)}i", *owned)
