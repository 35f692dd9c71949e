"""Joins linears that read the same value."""

import msgspec

from moesaic.partitioner.lowering.program import Program
from moesaic.plan_format import Step


def fuse_linears(program: Program) -> None:
    """Makes neighbouring Linear steps of one input and one device a single step.

    Queries, keys and values, or gate and up, then share one preparation of their input and one
    list of jobs.
    """
    steps: list[Step] = []
    for one in program.steps:
        if steps and _same_input(steps[-1], one):
            steps[-1] = _join(steps[-1], one)
        else:
            steps.append(one)
    program.steps = steps


def _same_input(a: Step, b: Step) -> bool:
    return a.op == b.op == "Linear" and a.inputs == b.inputs and a.device == b.device


def _join(a: Step, b: Step) -> Step:
    return msgspec.structs.replace(
        a,
        nodes=a.nodes + b.nodes,
        outputs=a.outputs + b.outputs,
        weights=a.weights + b.weights,
    )
