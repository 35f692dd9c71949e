"""Moves values to the devices that use them."""

from dataclasses import replace

import msgspec

from moesaic.partitioner.lowering.program import RESERVED, Program, reserved, step
from moesaic.plan_format import Step


def insert_copies(program: Program) -> None:
    """Inserts a Copy step for the values that a step reads from another device.

    All that a step needs from one device travels in one copy, right after the last of it is
    written, so that the device can go on meanwhile. A value is copied to a device once. Reserved
    values exist on every device: they only get its name.
    """
    steps: list[Step] = []
    for one in program.steps:
        for source in dict.fromkeys(_missing(program, one).values()):
            names = [name for name, device in _missing(program, one).items() if device == source]
            copy = _copy(program, one, names)
            written = max(i for i, s in enumerate(steps) if not set(names).isdisjoint(s.outputs))
            steps.insert(written + 1, copy)
        steps.append(_rename(program, one))
    program.steps = steps


def _missing(program: Program, one: Step) -> dict[str, str]:
    """Returns the inputs of a step that are not on its device yet, and where they are."""
    values = program.values
    return {
        name: values[name].device
        for name in one.inputs
        if name not in RESERVED
        and values[name].device != one.device
        and _local(name, one.device) not in values
    }


def _copy(program: Program, one: Step, names: list[str]) -> Step:
    outputs = [_local(name, one.device) for name in names]
    for name, output in zip(names, outputs, strict=True):
        program.values[output] = replace(program.values[name], name=output, device=one.device)
    return step("Copy", one.device, one.nodes, names, outputs)


def _rename(program: Program, one: Step) -> Step:
    """Makes the inputs of a step those of its device."""
    inputs = []
    for name in one.inputs:
        if name in RESERVED:
            value = reserved(name, one.device)
            inputs.append(program.values.setdefault(value.name, value).name)
        else:
            here = program.values[name].device == one.device
            inputs.append(name if here else _local(name, one.device))
    return msgspec.structs.replace(one, inputs=inputs)


def _local(name: str, device: str) -> str:
    return f"{name}@{device}"
