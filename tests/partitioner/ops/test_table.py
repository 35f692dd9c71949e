"""The operator table agrees with itself and with the plan format."""

import re
from pathlib import Path

import pytest

from moesaic.partitioner.ops import OPERATORS

FORMAT = Path(__file__).parents[3] / "docs" / "plan-format.md"
RESERVED = {"tokens", "positions", "sequences", "extended"}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
def test_a_program_s_inputs_outputs_and_attributes_are_the_graph_s(operator):
    form = operator.program
    assert operator.doc.endswith((".", "]."))
    if form is None:
        return
    inputs = {name.rstrip("?") for name in operator.inputs}
    assert set(form.inputs) <= inputs | RESERVED
    assert {f"{name}?" for name in form.with_weight} <= set(operator.weights)
    assert set(form.with_weight.values()) <= RESERVED
    assert set(form.outputs) <= set(operator.outputs)
    assert set(form.attributes) <= set(operator.attributes)


def test_attributes_are_those_of_the_plan_format():
    """The table of docs/plan-format.md: `op` | inputs | outputs | weights | attributes."""
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|\n]*\|){3} ([^|\n]*) \|$", FORMAT.read_text(), re.M)
    documented = {}
    for name, attributes in rows:
        bare = re.sub(r"\([^)]*\)", "", attributes)
        documented[name] = {a.strip() for a in bare.split(",") if a.strip()}
    stated = {
        operator.name: {*operator.program.attributes, *["cache"][: operator.program.cached]}
        for operator in OPERATORS.values()
        if operator.program
    }
    for name, attributes in stated.items():
        assert documented.get(name, set()) == attributes, name
