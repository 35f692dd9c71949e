"""From the nodes of a graph to the steps of a program."""

from typing import Literal

import onnx_ir as ir

from moesaic.partitioner.lowering.copies import insert_copies
from moesaic.partitioner.lowering.experts import split_experts
from moesaic.partitioner.lowering.fuse import fuse_linears
from moesaic.partitioner.lowering.program import Program, Value
from moesaic.partitioner.lowering.select import select_rows
from moesaic.partitioner.ops import OPERATORS, Operator
from moesaic.partitioner.placement import Placement
from moesaic.plan_format import Cache, KvType, Step

_GRAPH_POSITIONS = "Positions"


def lower(graph: ir.Graph, placement: Placement, kv_type: KvType = "f16") -> Program:
    """Returns the program of a graph whose nodes are placed, with caches of `kv_type`.

    Masks, past and present vanish: attention steps own a cache. Then the passes, in this order:
    nodes whose experts are split become a step a device and an addition; the rows of the result are
    chosen before the head; linears of one input join; values are copied to where they are used.
    """
    program = Program()
    for node in graph:
        operator = OPERATORS[node.op_type]
        if operator.program is not None:
            _add_step(program, node, operator, placement, kv_type)
    split_experts(program, placement)
    select_rows(program)
    fuse_linears(program)
    insert_copies(program)
    return program


def _add_step(
    program: Program, node: ir.Node, operator: Operator, placement: Placement, kv_type: KvType
) -> None:
    form = operator.program
    assert form is not None
    assert node.name is not None
    device = placement.nodes[node.name]
    attributes = operator.step_attributes(node)
    if form.cached:
        attributes = {"cache": len(program.caches), **attributes}
        program.caches.append(_cache(node, device, kv_type))
    arguments = operator.arguments(node)
    extra = [name for weight, name in form.with_weight.items() if arguments[weight] is not None]
    outputs = [node.outputs[operator.outputs.index(name)] for name in form.outputs]
    step = Step(
        op=node.op_type,
        device=device,
        nodes=[node.name],
        attrs=attributes,
        inputs=[_input(name, arguments) for name in form.inputs] + extra,
        outputs=[_name(value) for value in outputs],
        weights=[_weight(arguments[name.rstrip("?")]) for name in operator.weights],
    )
    program.steps.append(step)
    for value in outputs:
        program.values[_name(value)] = _value(value, device)


def _input(name: str, arguments: dict[str, ir.Value | None]) -> str:
    """Returns the value of an input; what the executor fills goes by its reserved name."""
    value = arguments.get(name)
    producer = value.producer() if value is not None else None
    if value is None or (producer is not None and producer.op_type == _GRAPH_POSITIONS):
        return name
    return _name(value)


def _weight(value: ir.Value | None) -> str | None:
    return None if value is None else _name(value)


def _value(value: ir.Value, device: str) -> Value:
    assert value.shape is not None
    dtype: Literal["f32", "i32"] = "i32" if value.dtype == ir.DataType.INT32 else "f32"
    return Value(_name(value), device, dtype, "tokens", int(value.shape[-1]))  # type: ignore[arg-type]


def _cache(node: ir.Node, device: str, kv_type: KvType) -> Cache:
    past = OPERATORS[node.op_type].arguments(node)["past_key"]
    assert past is not None
    assert past.name is not None
    attribute = {
        name: node.attributes[name].value for name in ("window", "kv_heads", "k_dim", "v_dim")
    }
    return Cache(
        layer=int(past.name.split(".")[1]),
        device=device,
        dtype=kv_type,
        **attribute,
    )


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
