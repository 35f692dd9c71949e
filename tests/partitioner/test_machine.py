"""Sizes, device lists, and what nodes cost."""

import json

import pytest
from conftest import MODELS

from moesaic import _pack
from moesaic.errors import PlacementError
from moesaic.machine_facts import this_machine, write_facts
from moesaic.partitioner.arch import build_model
from moesaic.partitioner.cost import STREAMED, Loads, integer_share, seconds, work
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.machine import ASSUMED_CPU, ASSUMED_CUDA, parse_devices, parse_size
from moesaic.partitioner.ops import Load, Work
from moesaic.plan_format import Facts, Limits


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 << 30),
        ("8gib", 8 << 30),
        ("8G", 8 << 30),
        ("8GB", 8_000_000_000),
        ("1.5MiB", 3 << 19),
        ("500 MB", 500_000_000),
        ("2TiB", 2 << 40),
        ("64k", 64 << 10),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
    ],
)
def test_sizes(text, size):
    assert parse_size(text, "vram") == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "8 GiBs", "1e9", "8XB", "0", 0, -1, "i", "4iB", True]
)
def test_bad_sizes_name_the_option(text):
    with pytest.raises(PlacementError, match=r"^vram: ") as caught:
        parse_size(text, "vram")
    assert "8GiB" in str(caught.value.hint)


def names(*args):
    return [(d.name, d.budget) for d in parse_devices(*args)]


def test_devices():
    assert names(None, None, None) == [("cpu", None)]
    assert names(None, None, "2KiB") == [("cpu", 2048)]
    assert names("cuda:0=1KiB", None, None) == [("cpu", None), ("cuda:0", 1024)]
    assert names("cuda, cpu=5", "1KiB", "2KiB") == [("cpu", 5), ("cuda:0", 1024)]
    assert names("cpu,cuda:1=7,cuda:0", 9, None) == [("cpu", None), ("cuda:1", 7), ("cuda:0", 9)]


def test_providers():
    cpu, cuda = parse_devices("cpu,cuda:3=1GiB", None, None)
    assert cpu.provider == "CPUExecutionProvider"
    assert cuda.provider == "CUDAExecutionProvider"


@pytest.mark.parametrize(
    "text", ["gpu", "cuda:", "cuda:x", "cuda:01", "cuda:-1", "cpu:0", "cpu,", "cpu,cpu", "cpu="]
)
def test_bad_devices(text):
    with pytest.raises(PlacementError, match=r"^devices: ") as caught:
        parse_devices(text, "1GiB", None)
    assert "cuda:0=24GiB" in str(caught.value.hint)


def test_vram_means_a_gpu():
    assert names(None, "8GiB", None) == [("cpu", None), ("cuda:0", 8 << 30)]
    with pytest.raises(PlacementError, match="no CUDA device") as caught:
        parse_devices("cpu", "8GiB", None)
    assert "cuda:0" in str(caught.value.hint)


def test_a_gpu_may_have_no_budget():
    assert names("cpu,cuda:0", None, None) == [("cpu", None), ("cuda:0", None)]


# Cost -----------------------------------------------------------------------------


def graph(case):
    return build_model(read_gguf(MODELS / f"{case}.gguf")).graph.graph


def node(case, name):
    return next(n for n in graph(case) if n.name == name)


def test_work_of_a_linear():
    one = node("llama-f32", "/lm_head")
    rows, cols = one.attributes["rows"].value, one.attributes["cols"].value
    strips = -(-rows // 16) * 16 * cols * 4
    assert work(one, Load(rows=3, context=9)) == Work(strips + 12 * (rows + cols), 6 * rows * cols)


def test_experts_read_what_tokens_choose():
    one = node("mixtral-f32", "/layers.0/moe/experts")
    x = one.inputs[0].shape[-1]
    stack = one.inputs[3].const_value.nbytes
    used, experts = one.attributes["used"].value, one.attributes["experts"].value
    single = work(one, Load(rows=1, context=0))
    assert single.bytes == pytest.approx(stack * used / experts + 8 * x)
    many = work(one, Load(rows=512, context=0))
    assert many.bytes == pytest.approx(stack + 512 * 8 * x)
    assert many.flops == 512 * single.flops


def test_attention_reads_at_most_its_window():
    one = node("gpt-oss-f32", "/layers.0/attn/attention")
    window = one.attributes["window"].value
    near, far = (work(one, Load(rows=1, context=n)) for n in (window, 100 * window))
    assert near == far
    full = node("gpt-oss-f32", "/layers.1/attn/attention")
    assert work(full, Load(1, 2000)).bytes > work(full, Load(1, 1000)).bytes


FACTS = Facts(read_bandwidth=100.0, int8_rate=10.0, float_rate=5.0, latency=1.0)


def test_the_slower_of_memory_and_arithmetic_decides():
    assert seconds("Linear", Work(500 * STREAMED, 10), 1.0, FACTS) == pytest.approx(1 + 5)
    assert seconds("Linear", Work(1, 80), 1.0, FACTS) == pytest.approx(1 + 8)
    assert seconds("Linear", Work(1, 80), 0.0, FACTS) == pytest.approx(1 + 16)
    assert seconds("Linear", Work(1, 80), 0.5, FACTS) == pytest.approx(1 + 12)
    assert seconds("Experts", Work(0, 0), 1.0, FACTS) == 2.0


def test_integer_and_float_weights_have_rates_of_their_own():
    assert integer_share(node("llama-f32", "/lm_head")) == 0.0
    assert integer_share(node("llama-q8_0", "/lm_head")) == 1.0
    assert integer_share(node("llama-q8_0", "/layers.0/attn_norm")) == 0.0
    experts = node("gpt-oss-mxfp4", "/layers.0/moe/experts")
    assert integer_share(experts) == pytest.approx(1, rel=0.1)


def test_loads_fit_the_limits_and_the_cache():
    loads = Loads.of(Limits(8192, 8, 512, 32), "f32")
    assert (loads.decode, loads.prefill) == (Load(1, 1024, 4), Load(512, 0, 4))
    small = Loads.of(Limits(64, 8, 48, 32), "q8_0")
    assert (small.decode, small.prefill) == (Load(1, 63, 34 / 32), Load(48, 0, 34 / 32))


# Measured facts ---------------------------------------------------------------------------------


MEASURED = Facts(read_bandwidth=2e10, int8_rate=1e12, float_rate=1e11, latency=1e-6)


@pytest.fixture
def facts_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "cache"))
    return write_facts(this_machine(_pack.usable_cores()), {"cpu": MEASURED})


def test_devices_have_the_speed_that_was_measured(facts_file):
    cpu, cuda = parse_devices("cpu,cuda:0", None, None)
    assert cpu.speed == MEASURED
    assert cuda.speed == ASSUMED_CUDA
    assert (cpu.speed.source, cuda.speed.source) == ("measured", "assumed")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"machine": {"cores": 3333}},
        {"machine": {"cpu": "another"}},
        {"machine": {"memory": 1}},
        {"machine": {"flags": ["other"]}},
        {"devices": {"cpu": {"read_bandwidth": 0.0}}},
        {"devices": {"cpu": {"latency": -1.0}}},
        {"unknown": 1},
    ],
)
def test_facts_of_another_machine_are_not_used(facts_file, change):
    def merge(old, new):
        inner = {k: merge(old[k], v) if isinstance(v, dict) else v for k, v in new.items()}
        return {**old, **inner}

    facts_file.write_text(json.dumps(merge(json.loads(facts_file.read_text()), change)))
    assert parse_devices(None, None, None)[0].speed == ASSUMED_CPU


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_damaged_file_of_facts_counts_as_none(facts_file, content):
    facts_file.write_bytes(content)
    assert parse_devices(None, None, None)[0].speed == ASSUMED_CPU
