"""Budgets: never exceeded, used for what helps most, and more of them is never slower."""

import pytest
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.native import null_run
from kit.placing import plan

from moesaic.errors import PlacementError
from moesaic.partitioner.memory import CUDA_RESERVE
from moesaic.plan_format import PlanFile

CASES = ("gpt-oss-mxfp4", "mixtral-f32", "llama-tied-f32", "gemma3-mixed")
MIB = 1 << 20


def of(case: str, devices: str, **options) -> PlanFile:
    return plan(MODELS / f"{case}.gguf", devices, **options)


def devices_of(made: PlanFile, node: str) -> set[str]:
    return {row.device for row in made.assignment if row.node == node}


def assert_within_budgets(made: PlanFile) -> None:
    for device, memory in zip(made.devices, made.memory, strict=True):
        assert device.budget is None or memory.total <= device.budget


def used(made: PlanFile) -> set[str]:
    return {step.device for step in made.program}


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(CASES),
    room=st.integers(0, 12 * MIB),
    more=st.integers(0, 4 * MIB),
    batch=st.sampled_from([1, 64, 512]),
)
def test_a_budget_is_kept_and_a_larger_one_is_not_slower(case, room, more, batch):
    plans = []
    for vram in (CUDA_RESERVE + room, CUDA_RESERVE + room + more):
        made = of(case, f"cpu,cuda:0={vram}", batch=batch)
        assert_within_budgets(made)
        plans.append(made.prediction)
    slower = plans[0].decode_tokens_per_second * (1 - 1e-9)
    assert plans[1].decode_tokens_per_second >= slower


@settings(max_examples=30, deadline=None)
@given(case=st.sampled_from(CASES), rooms=st.lists(st.integers(0, 6 * MIB), min_size=2, max_size=3))
def test_budgets_of_several_gpus_are_kept(case, rooms):
    listed = [f"cuda:{i}={CUDA_RESERVE + room}" for i, room in enumerate(rooms)]
    made = of(case, ",".join(["cpu", *listed]))
    assert_within_budgets(made)


@pytest.mark.parametrize("case", CASES)
def test_two_mebibytes_are_honest(case, tmp_path):
    made = of(case, "cpu,cuda:0=2MiB")
    assert [d.name for d in made.devices] == ["cpu"]
    assert used(made) == {"cpu"}
    note = made.prediction.notes[0]
    assert "nothing is placed there" in note and "2.00 MiB" in note
    assert made.wishes.devices == {"cpu": None, "cuda:0": 2 * MIB}
    null_run(made, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_with_room_for_all_everything_is_on_the_gpu(case, tmp_path):
    made = of(case, "cpu,cuda:0=4GiB")
    assert used(made) == {"cuda:0"}
    null_run(made, tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_without_a_budget_all_but_experts_is_on_the_gpu(case, tmp_path):
    made = of(case, "cpu,cuda:0")
    for row in made.assignment:
        assert row.device == ("cpu" if row.node.endswith("/experts") else "cuda:0")
        assert row.why.startswith("default: ")
    null_run(made, tmp_path)


def test_every_budget_between_gives_a_plan_that_runs(tmp_path):
    full = of("gpt-oss-mxfp4", "cpu,cuda:0=4GiB").memory[1].total
    seen = set()
    for room in range(CUDA_RESERVE, full + MIB, 512 << 10):
        made = of("gpt-oss-mxfp4", f"cpu,cuda:0={room}")
        seen.add(frozenset(used(made)))
        null_run(made, tmp_path)
    assert seen == {frozenset({"cpu"}), frozenset({"cpu", "cuda:0"}), frozenset({"cuda:0"})}


def test_what_a_small_budget_costs_is_said():
    full = of("gpt-oss-mxfp4", "cpu,cuda:0=4GiB").memory[1].total
    made = of("gpt-oss-mxfp4", f"cpu,cuda:0={full - 5 * MIB}")
    (note,) = [n for n in made.prediction.notes if "besides its experts" in n]
    assert "more vram would hold them" in note
    reasons = {row.why for row in made.assignment if "/attn/" in row.node}
    assert any(why.startswith("budget: ") and why.endswith("short") for why in reasons)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("budget", ["", "=2GiB"])
def test_several_gpus_have_layers_side_by_side(count, budget, tmp_path):
    made = of("gemma3-mixed", ",".join(["cpu", *(f"cuda:{i}{budget}" for i in range(count))]))
    layers = [min(devices_of(made, f"/layers.{i}/attn_norm")) for i in range(made.model.layers)]
    assert layers == sorted(layers)
    assert set(layers) == {f"cuda:{i}" for i in range(count)}
    assert devices_of(made, "/lm_head") == {f"cuda:{count - 1}"}
    assert devices_of(made, "/embed") == {"cpu"}
    assert {c.device for c in made.caches} == set(layers)
    null_run(made, tmp_path)


def test_a_cache_is_where_its_attention_is():
    made = of("gpt-oss-mxfp4", f"cpu,cuda:0={CUDA_RESERVE + 5 * MIB}")
    for step in made.program:
        if step.op == "Attention":
            assert made.caches[step.attrs["cache"]].device == step.device


def test_ram_bounds_the_host(tmp_path):
    need = of("gpt-oss-mxfp4", "cpu").memory[0].total
    made = of("gpt-oss-mxfp4", f"cpu={need // 2},cuda:0=4GiB")
    assert used(made) == {"cuda:0"}
    with pytest.raises(PlacementError, match=r"^cpu: .*more than the budget") as caught:
        of("gpt-oss-mxfp4", f"cpu={need // 2},cuda:0=2MiB")
    assert "raise ram" in str(caught.value.hint)


def test_predictions_count_the_copies_of_the_program():
    for devices in ("cpu", "cpu,cuda:0", "cpu,cuda:0=386MiB", "cpu,cuda:0,cuda:1"):
        for case in CASES:
            made = of(case, devices)
            copies = sum(step.op == "Copy" for step in made.program)
            logits_on_host = next(b for b in made.buffers if b.name == "logits").device == "cpu"
            assert made.prediction.handovers == copies + (not logits_on_host), (case, devices)


def test_speeds_are_marked_as_assumed():
    made = of("gpt-oss-mxfp4", "cpu,cuda:0")
    assert [d.facts.source for d in made.devices] == ["assumed", "assumed"]
    assert made.prediction.decode_tokens_per_second > 0
    assert {d.device for d in made.prediction.devices} == {"cpu", "cuda:0"}
