"""Splits the experts of a node between devices."""

from dataclasses import replace

import msgspec

from moesaic.errors import PlacementError
from moesaic.partitioner.lowering.program import Program, step
from moesaic.partitioner.machine import CPU
from moesaic.partitioner.placement import Placement
from moesaic.plan_format import Step


def split_experts(program: Program, placement: Placement) -> None:
    """Makes each Experts step that `placement` splits one step a device, and adds their results.

    Steps of other devices come before the host's, so that they can run while the host works.
    """
    steps: list[Step] = []
    for one in program.steps:
        owned = placement.owned.get(one.nodes[0]) if one.op == "Experts" else None
        steps += _split(program, one, {d: sorted(e) for d, e in owned.items()}) if owned else [one]
    program.steps = steps


def _split(program: Program, one: Step, owned: dict[str, list[int]]) -> list[Step]:
    everything = sorted(expert for experts in owned.values() for expert in experts)
    if everything != list(range(one.attrs["experts"])) or not all(owned.values()):
        raise PlacementError(
            f"{one.nodes[0]}: every expert must be on exactly one device, and each device have one"
        )
    if len(owned) == 1:
        (device,) = owned
        return [_moved(program, one, device, one.outputs[0])]
    result = one.outputs[0]
    devices = sorted(owned, key=lambda device: device == CPU)
    parts = {device: f"{result}.{device}" for device in devices}
    steps = [
        msgspec.structs.replace(_moved(program, one, device, parts[device]), experts=owned[device])
        for device in devices
    ]
    return [*steps, *_sum(program, one, list(parts.values()))]


def _moved(program: Program, one: Step, device: str, output: str) -> Step:
    """Returns the step on another device, with another output."""
    value = program.values[one.outputs[0]]
    program.values[output] = replace(value, name=output, device=device)
    return msgspec.structs.replace(one, device=device, outputs=[output])


def _sum(program: Program, one: Step, parts: list[str]) -> list[Step]:
    """Returns the steps that add `parts` up to the output of `one`, on its device."""
    steps, total = [], parts[0]
    for index, part in enumerate(parts[1:], 2):
        output = one.outputs[0] if index == len(parts) else f"{one.outputs[0]}.sum{index}"
        steps.append(step("Add", one.device, one.nodes, [total, part], [output]))
        program.values.setdefault(output, program.values[one.outputs[0]])
        total = output
    return steps
