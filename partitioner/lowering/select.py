"""Keeps only the rows whose logits are wanted, before the work of the head."""

from dataclasses import replace

import msgspec

from moesaic.partitioner.lowering.program import RESULT, Program, activations, step


def select_rows(program: Program) -> None:
    """Inserts a SelectRows step where the chain of single values that ends in the logits begins.

    Every step of that chain maps rows to rows, so it gives the same logits on fewer rows.
    """
    first, value = len(program.steps), RESULT
    while True:
        index = program.producer(value)
        inputs = activations(program.steps[index].inputs)
        if len(inputs) != 1 or len(inputs) != len(program.steps[index].inputs):
            break
        first, value = index, inputs[0]
    source = program.values[value]
    selected = f"{value}.wanted"
    program.values[selected] = replace(source, name=selected, rows="wanted")
    chosen = step(
        "SelectRows", source.device, program.steps[first].nodes, [value, "wanted"], [selected]
    )
    for i, one in enumerate(program.steps[first:], first):
        inputs = [selected if name == value else name for name in one.inputs]
        program.steps[i] = msgspec.structs.replace(one, inputs=inputs)
        for output in one.outputs:
            program.values[output] = replace(program.values[output], rows="wanted")
    program.steps.insert(first, chosen)
