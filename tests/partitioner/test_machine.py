"""Sizes, device lists, and what nodes cost."""

import pytest
from conftest import MODELS

from moesaic.errors import DeviceError, PlacementError
from moesaic.partitioner.arch import build_model
from moesaic.partitioner.assign import assign, assignment_table
from moesaic.partitioner.cost import seconds, work
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.machine import DeviceFacts, DeviceSpec, parse_devices, parse_size
from moesaic.partitioner.ops import Load, Work


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


def test_vram_without_a_gpu():
    with pytest.raises(DeviceError, match="no CUDA device") as caught:
        parse_devices(None, "8GiB", None)
    assert "devices" in str(caught.value.hint)


def test_a_gpu_without_a_budget():
    with pytest.raises(PlacementError, match="cuda:0"):
        parse_devices("cpu,cuda:0", None, None)


# Assignment and cost ----------------------------------------------------------------------------


def graph(case):
    return build_model(read_gguf(MODELS / f"{case}.gguf")).graph.graph


def test_without_a_gpu_everything_is_on_the_host():
    placement = assign(graph("gpt-oss-f32"), [DeviceSpec("cpu")])
    assert set(placement.nodes.values()) == {"cpu"}


def test_with_a_gpu_experts_stay_on_the_host():
    placement = assign(graph("gpt-oss-f32"), [DeviceSpec("cpu"), DeviceSpec("cuda:0", 1)])
    on_host = [name for name, device in placement.nodes.items() if device == "cpu"]
    assert on_host == [f"/layers.{i}/moe/experts" for i in range(3)]
    assert set(placement.nodes.values()) == {"cpu", "cuda:0"}


def test_a_dense_model_is_on_the_gpu_alone():
    placement = assign(graph("llama-f32"), [DeviceSpec("cpu"), DeviceSpec("cuda:0", 1)])
    assert set(placement.nodes.values()) == {"cuda:0"}


def test_several_gpus_are_refused():
    devices = parse_devices("cuda:0=1GiB,cuda:1=1GiB", None, None)
    with pytest.raises(PlacementError, match="2 CUDA devices"):
        assign(graph("llama-f32"), devices)


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


def test_the_slower_of_memory_and_arithmetic_decides():
    facts = DeviceFacts(read_bandwidth=100.0, flops=10.0, latency=1.0)
    assert seconds(Work(500, 10), facts) == 6.0
    assert seconds(Work(100, 80), facts) == 9.0
    assert seconds(Work(100, 80), None) == 0.0


def test_the_table_has_a_row_a_node_and_seconds_only_if_measured():
    one, facts = graph("mixtral-f32"), DeviceFacts(1e9, 1e10)
    placement = assign(one, [DeviceSpec("cpu")])
    unmeasured = assignment_table(one, placement, [DeviceSpec("cpu")])
    assert [row.node for row in unmeasured] == [n.name for n in one if n.op_type != "Positions"]
    assert {row.decode_seconds for row in unmeasured} == {0.0}
    measured = assignment_table(one, placement, [DeviceSpec("cpu", facts=facts)])
    assert all(row.decode_seconds > 0 and row.prefill_seconds > 0 for row in measured)
    assert sum(row.weight_bytes for row in measured) >= sum(
        value.const_value.nbytes for value in one.initializers.values()
    )
