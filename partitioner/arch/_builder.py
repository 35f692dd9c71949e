"""Builds the graph of a model, node by node."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from moesaic.partitioner.arch._weights import Weights
from moesaic.partitioner.gguf import GgufFile
from moesaic.partitioner.ops import DOMAIN, OPERATORS, Node
from moesaic.partitioner.plan.sources import TensorSource
from moesaic.plan_format import ModelFacts, Part, Tensor

OPSET = 23
IR_VERSION = 10
PLACEMENT_KEY = "layer_ann"


@dataclass(frozen=True, slots=True)
class Model:
    """What an architecture makes of a model file.

    Attributes:
        graph: The placement-neutral graph; its weights refer to ``weights.bin`` by offset.
        sources: Its weights in the order of the file, with the origin of every part.
        tensors: Their places in the file, not hashed yet.
        facts: What the model is.
    """

    graph: ir.Model
    sources: list[TensorSource]
    tensors: list[Tensor]
    facts: ModelFacts


class Builder:
    """Collects the nodes and weights of one model.

    Blocks use short names: `layer` sets the prefix of nodes and tensors, `place` the class.

    Args:
        gguf: The model file.
        kv_type: Element type of the caches; the graph's are float32 for ``f32``, else float16.
    """

    def __init__(self, gguf: GgufFile, kv_type: str) -> None:
        self.gguf = gguf
        self.hyper = gguf.hyper
        self.weights = Weights(gguf)
        self._kv_dtype = ir.DataType.FLOAT if kv_type == "f32" else ir.DataType.FLOAT16
        self._prefix, self._class = "/", "embed"
        self._nodes: list[ir.Node] = []
        ids = _input("input_ids", ir.DataType.INT64, "batch_size", "sequence_length")
        mask = _input("attention_mask", ir.DataType.INT64, "batch_size", "total_sequence_length")
        self._inputs = [ids, mask]
        self._outputs: list[ir.Value] = []
        self.input_ids, self.attention_mask = ids, mask
        (self.positions,) = self.node("Positions", "positions", [mask, ids])

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Names nodes `/layers.<index>/…`, tensors `blk.<index>.…`, the class `dense.<index>`."""
        self._prefix = f"/layers.{index}/"
        with self.place(f"dense.{index}"), self.weights.layer(index):
            yield
        self._prefix = "/"

    @contextmanager
    def place(self, placement: str) -> Iterator[None]:
        """Gives nodes the placement class `placement`."""
        before, self._class = self._class, placement
        yield
        self._class = before

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[ir.Value],
        weights: Sequence[ir.Value | None] = (),
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Adds a node and returns its outputs, called `<node>/output_<i>`."""
        operator = OPERATORS[op]
        assert attributes.keys() == operator.attributes.keys(), (op, attributes)
        arguments = [*inputs, *weights]
        while arguments[-1] is None:
            arguments.pop()
        node = ir.Node(
            DOMAIN,
            op,
            arguments,
            [ir.convenience.convert_attribute(k, _exact(v)) for k, v in attributes.items()],
            num_outputs=len(operator.outputs),
            name=self._prefix + name,
            metadata_props={PLACEMENT_KEY: self._class},
        )
        types = operator.infer(Node(node, operator))
        for index, (output, (dtype, shape)) in enumerate(zip(node.outputs, types, strict=True)):
            output.name = f"{node.name}/output_{index}"
            output.type, output.shape = ir.TensorType(dtype), shape
        self._nodes.append(node)
        return tuple(node.outputs)

    def past(self, layer: int, kv_heads: int, k_dim: int, v_dim: int) -> list[ir.Value]:
        """Adds the graph inputs past_key_values.<layer>.key and .value."""
        pair = [
            _input(
                f"past_key_values.{layer}.{name}",
                self._kv_dtype,
                *("batch_size", kv_heads, "past_sequence_length", dim),
            )
            for name, dim in (("key", k_dim), ("value", v_dim))
        ]
        self._inputs += pair
        return pair

    def present(self, layer: int, key: ir.Value, value: ir.Value) -> None:
        """Makes two values the graph outputs present.<layer>.key and .value."""
        key.name, value.name = f"present.{layer}.key", f"present.{layer}.value"
        self._outputs += [key, value]

    def _functions(self) -> list[ir.Function]:
        """Makes the bodies of the operators that have one; nodes of one kind share theirs."""
        functions: dict[str, ir.Function] = {}
        for node in self._nodes:
            operator = OPERATORS[node.op_type]
            if operator.function:
                key = str((node.op_type, len(node.inputs), *map(_value, node.attributes.values())))
                if key not in functions:
                    functions[key] = operator.function(Node(node, operator))
                node.overload = functions[key].overload
        return list(functions.values())

    def parts(self, weight: ir.Value) -> list[Part]:
        """Returns the parts of a weight."""
        assert weight.name is not None
        return self.weights.tensors[weight.name].parts

    def finish(self, logits: ir.Value, facts: ModelFacts) -> Model:
        """Returns the model; a tensor of the file that no node uses is an error."""
        self.weights.refuse_unused()
        logits.name = "logits"
        graph = ir.Graph(
            self._inputs,
            [logits, *self._outputs],
            nodes=self._nodes,
            initializers=list(self.weights.values.values()),
            opset_imports={"": OPSET, DOMAIN: 1},
            name=facts.architecture,
        )
        model = ir.Model(
            graph, ir_version=IR_VERSION, producer_name="moesaic", functions=self._functions()
        )
        weights = self.weights
        return Model(model, list(weights.sources.values()), list(weights.tensors.values()), facts)


def _input(name: str, dtype: ir.DataType, *shape: str | int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _value(attribute: ir.Attr) -> Any:
    return attribute.value


def _exact(value: Any) -> Any:
    """Rounds a float to the float32 that ONNX stores: a graph reads back as it was built."""
    if isinstance(value, bool):
        return int(value)
    return float(np.float32(value)) if isinstance(value, float) else value
