"""The memory plan: the runtime allocates what was planned, and nothing live overlaps."""

from itertools import pairwise

import numpy as np
import pytest
from conftest import MODELS
from kit.native import executor

from moesaic.errors import PlacementError
from moesaic.partitioner.arch import build_model
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.lowering import Program, Value
from moesaic.partitioner.lowering.program import step
from moesaic.partitioner.machine import DeviceSpec, parse_devices
from moesaic.partitioner.memory import kv_bytes, plan_memory
from moesaic.partitioner.planning import choose_limits, make_plan
from moesaic.plan_format import KV_TYPES, Cache, KvType, Limits, PlanFile, Source

SMALL = {"context": 40, "sequences": 2, "batch": 16}


def plan(case: str, devices: str = "cpu", kv_type: KvType = "f16", **limits: int) -> PlanFile:
    built = build_model(read_gguf(MODELS / f"{case}.gguf"), kv_type)
    return make_plan(
        built.graph.graph,
        built.tensors,
        built.facts,
        Source(f"{case}.gguf", 1, {}),
        choose_limits(built.facts.context_length, **(SMALL | limits)),
        parse_devices(devices, None, None),
        kv_type=kv_type,
    )


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("case", ["llama-q8_0", "gemma3-mixed", "gpt-oss-mxfp4", "mixtral-f32"])
def test_the_runtime_allocates_what_was_planned(case, kv_type, tmp_path):
    made = plan(case, kv_type=kv_type)
    (found,) = executor(made, tmp_path, null_provider=False).memory()
    (planned,) = made.memory
    assert planned.weights == found["weights"]
    assert planned.kv == found["kv"]
    assert planned.activations == found["activations"]
    assert found["reserve"] <= planned.reserve  # the plan's is for all cores


@pytest.mark.parametrize("case", ["gemma3-mixed", "gpt-oss-mxfp4"])
def test_totals_add_up(case):
    made = plan(case, "cpu,cuda:0")
    for m, device in zip(made.memory, made.devices, strict=True):
        assert m.total == m.weights + m.kv + m.activations + m.staging + m.reserve
        assert m.activations == device.arena_bytes + device.scratch_bytes


def test_a_tied_table_on_one_device_counts_once():
    made = plan("llama-tied-f32")
    assert made.memory[0].weights == sum(t.bytes for t in made.tensors)


def test_staging_is_the_largest_copy():
    made = plan("gpt-oss-f32", "cpu,cuda:0")
    hidden, used = made.model.hidden_size, made.model.experts_used
    rows = made.limits.batch
    assert made.memory[0].staging == 4 * rows * (hidden + 2 * used)
    assert made.memory[1].staging == 0


def cache(**changes) -> Cache:
    fields = {"layer": 0, "device": "cpu", "window": 0, "kv_heads": 2, "k_dim": 8, "v_dim": 4}
    return Cache(**(fields | {"dtype": "f16"} | changes))


def test_pools_of_pages():
    limits = Limits(context=33, sequences=3, batch=64, logits_rows=32)
    page = 32 * 2 * (8 + 4) * 2
    assert kv_bytes([cache()], limits, "cpu") == 3 * 2 * page
    assert kv_bytes([cache(dtype="f32")], limits, "cpu") == 3 * 2 * page * 2
    assert kv_bytes([cache(dtype="bf16")], limits, "cpu") == 3 * 2 * page
    # groups of 32 with a scale of two bytes; heads are padded to whole groups
    assert kv_bytes([cache(dtype="q8_0")], limits, "cpu") == 3 * 2 * 32 * 2 * (34 + 34)
    wide = cache(dtype="q8_0", k_dim=96, v_dim=80)
    assert kv_bytes([wide], limits, "cpu") == 3 * 2 * 32 * 2 * (3 * 34 + 3 * 34)
    assert kv_bytes([cache(window=1)], limits, "cpu") == 3 * 2 * page  # never more than a context
    longer = Limits(context=4096, sequences=3, batch=64, logits_rows=32)
    assert kv_bytes([cache(window=1)], longer, "cpu") == 3 * (3 + 1) * page
    assert kv_bytes([cache()], limits, "cuda:0") == 0


def test_windowed_pools_share_the_largest_window():
    limits = Limits(context=4096, sequences=1, batch=32, logits_rows=32)
    page = 32 * 2 * (8 + 4) * 2
    caches = [cache(window=32), cache(window=320)]
    assert kv_bytes(caches, limits, "cpu") == 2 * (11 + 1) * page
    # also when the largest is on another device
    caches = [cache(window=32), cache(window=320, device="cuda:0")]
    assert kv_bytes(caches, limits, "cpu") == (11 + 1) * page


def random_program(rng: np.random.Generator) -> Program:
    """A chain of additions of random older values; every width is another."""
    program = Program()
    names = ["v0", "v1"]
    for name in names:
        program.steps.append(step("Scale", "cpu", ["/n"], ["tokens@cpu"], [name]))
    for i in range(2, 40):
        recent = [int(n) for n in rng.integers(max(0, i - 6), i, 2)]
        names.append(f"v{i}" if i < 39 else "logits")
        inputs = [names[j] for j in recent]
        program.steps.append(step("Add", "cpu", ["/n"], inputs, [names[-1]]))
    widths = rng.integers(1, 60, len(names))
    program.values = {
        name: Value(name, "cpu", "f32", "tokens", int(w))
        for name, w in zip(names, widths, strict=True)
    }
    program.values["tokens@cpu"] = Value("tokens@cpu", "cpu", "i32", "tokens", 1)
    return program


@pytest.mark.parametrize("seed", range(20))
def test_values_that_live_at_once_do_not_overlap(seed):
    program = random_program(np.random.default_rng(seed))
    limits = Limits(context=32, sequences=1, batch=5, logits_rows=5)
    made = plan_memory(program, {}, limits, [DeviceSpec("cpu")])
    places = {b.name: (b.offset, b.offset + b.max_rows * b.bytes_per_row) for b in made.buffers}
    assert all(start % 64 == 0 for start, _ in places.values())
    first = {s.outputs[0]: i for i, s in enumerate(program.steps)} | {"tokens@cpu": -1}
    last = dict(first) | {n: i for i, s in enumerate(program.steps) for n in s.inputs}
    last["logits"] = len(program.steps)
    peak = 0
    for i in range(-1, len(program.steps)):
        live = [n for n in places if first[n] <= i <= last[n]]
        spans = sorted(places[n] for n in live)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        peak = max(peak, sum(b - a + -(b - a) % 64 for a, b in spans))
    arena = made.devices[0].arena_bytes
    assert max(end for _, end in places.values()) <= arena
    assert peak <= arena <= 1.5 * peak  # tight, though not always the optimum


# Budgets ----------------------------------------------------------------------------------------


def test_a_small_budget_names_node_shortfall_and_help():
    need = plan("gpt-oss-f32", "cpu").memory[0].total
    short = need - 1000
    with pytest.raises(PlacementError) as caught:
        plan("gpt-oss-f32", f"cpu={short}")
    message = str(caught.value)
    assert message.startswith("cpu: ")
    assert f" {need - short} more than the budget of {short}" in message
    assert message.endswith("/lm_head")
    assert f"raise ram to {need}" in str(caught.value.hint)
    plan("gpt-oss-f32", f"cpu={need}")


def test_a_tiny_budget_fails_at_the_first_node():
    with pytest.raises(PlacementError, match=r"the first node that does not fit is /embed$"):
        plan("llama-f32", "cpu=2048")


def test_the_host_has_a_budget_too():
    with pytest.raises(PlacementError, match=r"^cpu: .* budget of 1024;") as caught:
        plan("llama-f32", "cpu=1KiB")
    assert "ram" in str(caught.value.hint)


def test_the_advice_names_what_takes_the_memory():
    with pytest.raises(PlacementError) as caught:
        plan("llama-f32", "cpu=1MiB", context=4096, sequences=8)
    assert "lower context (4096) or sequences (8)" in str(caught.value.hint)
    with pytest.raises(PlacementError) as caught:
        plan("llama-f32", "cpu=1MiB", batch=4096)
    assert "lower batch (4096)" in str(caught.value.hint)
