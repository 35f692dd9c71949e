"""Placements and plans of model files, without the command line's defaults."""

from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir

from moesaic.partitioner.arch import PLACEMENT_KEY, Model, build_model
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.machine import parse_devices
from moesaic.partitioner.placement import Placement
from moesaic.partitioner.planning import choose_limits, make_plan
from moesaic.plan_format import PlanFile, Source

LIMITS = ("context", "sequences", "batch")


def by_default(graph: ir.Graph, device: str = "cpu") -> Placement:
    """Experts on the host, everything else on a device."""
    kinds = {str(node.name): node.metadata_props[PLACEMENT_KEY].split(".")[0] for node in graph}
    return Placement({name: "cpu" if k == "experts" else device for name, k in kinds.items()})


@cache
def model(path: Path) -> Model:
    """The graph of a model file, read once."""
    return build_model(read_gguf(path))


def plan(path: Path, devices: str, **options: Any) -> PlanFile:
    """A plan that is not written; limits and the options of `make_plan` by name."""
    built = model(path)
    limits = {name: options.pop(name) for name in LIMITS if name in options}
    return make_plan(
        built.graph.graph,
        built.tensors,
        built.facts,
        Source(path.name, 1, {}),
        choose_limits(built.facts.context_length, **limits),
        parse_devices(devices, None, None),
        **options,
    )
