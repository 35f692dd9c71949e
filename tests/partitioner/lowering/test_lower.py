"""Programs of real graphs: what the passes do, and that the runtime accepts the result."""

from dataclasses import dataclass
from functools import cache

import pytest
from conftest import MODELS
from kit.edited_gguf import edited
from kit.native import null_run, program
from kit.placing import by_default

from moesaic.errors import PlacementError
from moesaic.partitioner.arch import Model, build_model
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS
from moesaic.partitioner.lowering import lower
from moesaic.partitioner.machine import parse_devices
from moesaic.partitioner.placement import Placement
from moesaic.partitioner.planning import choose_limits, make_plan
from moesaic.plan_format import PlanFile, Source, Step

BOTH = "cpu,cuda:0"
CASES = [
    path.stem
    for path in sorted(MODELS.glob("*.gguf"))
    if all(t.type in MATRIX_CODECS for t in read_gguf(path).tensors.values())
]


@cache
def model(case: str) -> Model:
    return build_model(read_gguf(MODELS / f"{case}.gguf"))


@dataclass
class Lowered:
    built: Model
    placement: Placement
    steps: list[Step]

    def ops(self, layer: int) -> list[tuple[str, str]]:
        """(op, device) of the steps of a layer."""
        return [(s.op, s.device) for s in self.steps if s.nodes[0].startswith(f"/layers.{layer}/")]


def lowered(case: str, devices: str = "cpu", owned: dict | None = None) -> Lowered:
    built = model(case)
    placement = by_default(built.graph.graph, devices.split(",")[-1])
    placement = Placement(placement.nodes, owned or {})
    return Lowered(built, placement, lower(built.graph.graph, placement).steps)


def plan(case: str, devices: str = "cpu", owned: dict | None = None) -> PlanFile:
    built = model(case)
    graph, specs = built.graph.graph, parse_devices(devices, None, None)
    placement = Placement(by_default(graph, specs[-1].name).nodes, owned or {})
    source, limits = Source(f"{case}.gguf", 1, {}), choose_limits(64, batch=16, sequences=2)
    return make_plan(graph, built.tensors, built.facts, source, limits, specs, placement=placement)


def split(case: str) -> dict[str, dict[str, list[int]]]:
    """Layer 0: one expert on the host, the rest on the GPU; layer 1: the other way round."""
    experts = model(case).facts.experts
    return {
        "/layers.0/moe/experts": {"cpu": [1], "cuda:0": [0, *range(2, experts)]},
        "/layers.1/moe/experts": {"cuda:0": [experts - 1], "cpu": list(range(experts - 1))},
    }


@pytest.mark.parametrize("devices", ["cpu", BOTH])
@pytest.mark.parametrize("case", CASES)
def test_the_runtime_accepts_and_runs_every_model(case, devices, tmp_path):
    made = plan(case, devices)
    logits = null_run(made, tmp_path)
    assert logits.shape == (1, made.model.vocab_size)


@pytest.mark.parametrize("case", ["mixtral-f32", "gpt-oss-mxfp4", "mixtral-top1-q4_0"])
def test_the_runtime_accepts_split_experts(case, tmp_path):
    made = plan(case, BOTH, split(case))
    logits = null_run(made, tmp_path)
    assert logits.shape == (1, made.model.vocab_size)
    shares = [row for row in made.assignment if row.node == "/layers.0/moe/experts"]
    assert {row.device for row in shares} == {"cpu", "cuda:0"}
    stack = next(t for t in made.tensors if t.name == "blk.0.ffn_exps")
    assert sum(row.weight_bytes for row in shares) == stack.bytes


def test_a_layer_on_one_device():
    steps = lowered("gpt-oss-f32").ops(1)
    assert [op for op, _ in steps] == [
        *("RMSNorm", "Linear", "Rope", "Rope", "Attention", "Linear", "Add"),
        *("RMSNorm", "Linear", "Route", "Experts", "Add"),
    ]


def test_queries_keys_and_values_are_one_step_and_so_are_gate_and_up():
    linears = [s for s in lowered("llama-bias-f32").steps if s.op == "Linear"]
    qkv = linears[0]
    assert qkv.nodes == [f"/layers.0/attn/{x}_proj" for x in "qkv"]
    assert qkv.weights == [f"blk.0.attn_{x}.{kind}" for x in "qkv" for kind in ("weight", "bias")]
    assert len(qkv.outputs) == 3
    assert [s.nodes for s in linears[2:4]] == [
        ["/layers.0/mlp/gate_proj", "/layers.0/mlp/up_proj"],
        ["/layers.0/mlp/down_proj"],
    ]


def test_linears_on_different_devices_stay_apart():
    built = model("llama-f32")
    nodes = dict(by_default(built.graph.graph).nodes)
    nodes["/layers.0/attn/k_proj"] = "cuda:0"
    steps = lower(built.graph.graph, Placement(nodes)).steps
    linears = [s.nodes[0] for s in steps if s.op == "Linear"][:3]
    assert linears == [f"/layers.0/attn/{x}_proj" for x in "qkv"]


@pytest.mark.parametrize("case", ["llama-f32", "gemma3-f32"])
def test_rows_are_chosen_before_the_final_norm(case):
    steps = lowered(case).steps
    i = next(i for i, s in enumerate(steps) if s.op == "SelectRows")
    assert steps[i - 1].nodes == [f"/layers.{1 if case == 'llama-f32' else 6}/ffn_residual"]
    assert steps[i + 1].nodes == ["/norm"]
    assert steps[i + 1].inputs == steps[i].outputs
    assert steps[-1].outputs == ["logits"]


def test_rows_are_chosen_before_a_softcap_too(tmp_path):
    path = edited(
        MODELS / "gemma3-f32.gguf", tmp_path / "x.gguf", {"gemma3.final_logit_softcapping": 30.0}
    )
    graph = build_model(read_gguf(path)).graph.graph
    steps = lower(graph, by_default(graph)).steps
    assert [s.op for s in steps[-4:]] == ["SelectRows", "RMSNorm", "Linear", "Softcap"]
    assert steps[-1].attrs == {"cap": 30.0}


def test_only_rows_after_the_choice_are_wanted_rows():
    made = plan("gpt-oss-f32")
    wanted = {b.name for b in made.buffers if b.rows == "wanted"}
    chosen = next(s for s in made.program if s.op == "SelectRows").outputs[0]
    assert wanted == {"wanted@cpu", chosen, "/norm/output_0", "logits"}


def test_experts_on_the_host_take_one_copy_there_and_one_back():
    steps = lowered("mixtral-f32", BOTH).ops(0)
    gpu, host = "cuda:0", "cpu"
    assert steps[-7:] == [
        ("RMSNorm", gpu),
        ("Linear", gpu),
        ("Route", gpu),
        ("Copy", host),
        ("Experts", host),
        ("Copy", gpu),
        ("Add", gpu),
    ]
    copies = [s for s in lowered("mixtral-f32", BOTH).steps if s.op == "Copy"]
    assert [len(s.inputs) for s in copies] == [3, 1, 3, 1]
    assert copies[0].inputs == [
        "/layers.0/ffn_norm/output_0",
        "/layers.0/moe/route/output_0",
        "/layers.0/moe/route/output_1",
    ]


def test_a_split_node_hands_over_before_its_gpu_part_and_adds_up():
    steps = lowered("mixtral-f32", BOTH, split("mixtral-f32")).ops(0)
    gpu, host = "cuda:0", "cpu"
    assert steps[-8:] == [
        ("Route", gpu),
        ("Copy", host),
        ("Experts", gpu),
        ("Copy", host),
        ("Experts", host),
        ("Add", host),
        ("Copy", gpu),
        ("Add", gpu),
    ]


def test_parts_of_a_split_node_own_every_expert_once():
    steps = lowered("gpt-oss-f32", BOTH, split("gpt-oss-f32")).steps
    parts = [s for s in steps if s.op == "Experts" and s.nodes == ["/layers.0/moe/experts"]]
    assert [(s.device, s.experts) for s in parts] == [("cuda:0", [0, 2, 3, 4]), ("cpu", [1])]


@pytest.mark.parametrize(
    "owned",
    [{"cpu": [0, 1], "cuda:0": [1, 2, 3, 4, 5]}, {"cpu": [0]}, {"cpu": [*range(6)], "cuda:0": []}],
)
def test_experts_must_be_owned_once(owned):
    with pytest.raises(PlacementError, match=r"/layers\.0/moe/experts"):
        lowered("mixtral-f32", BOTH, {"/layers.0/moe/experts": owned})


def test_a_split_with_one_owner_moves_the_node():
    steps = lowered("mixtral-f32", BOTH, {"/layers.0/moe/experts": {"cuda:0": [*range(6)]}}).steps
    (step,) = [s for s in steps if s.nodes == ["/layers.0/moe/experts"] and s.op != "Copy"]
    assert (step.op, step.device, step.experts) == ("Experts", "cuda:0", None)


def test_reserved_values_are_those_of_the_step_s_device():
    for step in lowered("gpt-oss-f32", BOTH).steps:
        for name in step.inputs:
            if name.split("@")[0] in ("tokens", "positions", "sequences", "wanted"):
                assert name.endswith(f"@{step.device}")


def test_caches_are_numbered_by_attention_step():
    made = plan("gemma3-f32", BOTH)
    caches = [s.attrs["cache"] for s in made.program if s.op == "Attention"]
    assert caches == list(range(7))
    assert [c.layer for c in made.caches] == list(range(7))
    assert {c.device for c in made.caches} == {"cuda:0"}
    assert program(made)


@pytest.mark.parametrize("devices", ["cpu", BOTH])
def test_a_second_rope_table_comes_with_the_flags_that_choose_it(devices):
    made = plan("phimoe-f32", devices)
    ropes = [step for step in made.program if step.op == "Rope"]
    assert len(ropes) == 2 * made.model.layers
    for step in ropes:
        assert step.inputs[1:] == [f"positions@{step.device}", f"extended@{step.device}"]
        assert step.weights == ["rope.inv_freq", "rope.inv_freq_long"]
    plain = plan("phimoe-grin-f32", devices)
    assert {len(step.inputs) for step in plain.program if step.op == "Rope"} == {2}
    assert not [buffer for buffer in plain.buffers if buffer.name.startswith("extended")]
