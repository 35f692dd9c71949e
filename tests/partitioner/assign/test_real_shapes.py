"""Budgets of a model with published shapes; its file has a header and a hole for the weights."""

import importlib
import os
from pathlib import Path

import pytest
from kit.placing import plan

from moesaic.partitioner import planning

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
GIB = 1 << 30


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory):
    """gpt-oss-20b with float16 attention and head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        synthetic = importlib.import_module("synthetic")
        model = synthetic.MODELS["gpt-oss-20b-f16"]
        path = tmp_path_factory.mktemp("models") / "gpt-oss.gguf"
        synthetic.write_header(model, path)
    size = synthetic.padded(path.stat().st_size) + synthetic.data_bytes(model)
    os.truncate(path, size)
    return path


def classes(made, device):
    return {row.node.split("/")[-1] for row in made.assignment if row.device == device}


def test_more_vram_is_never_slower_and_is_used(gpt_oss):
    before = 0.0
    for vram in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 14, 16):
        made = plan(gpt_oss, f"cpu,cuda:0={round(vram * GIB)}")
        memory = made.memory[-1]
        assert memory.device == "cuda:0"
        assert memory.total <= vram * GIB
        assert memory.total >= 0.85 * vram * GIB or vram == 16
        assert made.prediction.decode_tokens_per_second >= before
        before = made.prediction.decode_tokens_per_second


def test_the_embedding_is_the_first_to_leave(gpt_oss):
    made = plan(gpt_oss, "cpu,cuda:0=8GiB")
    assert "embed" in classes(made, "cpu")
    assert {"lm_head", "attention", "q_proj", "router"} <= classes(made, "cuda:0")
    assert "embed" in classes(plan(gpt_oss, "cpu,cuda:0=24GiB"), "cuda:0")
    (why,) = [row.why for row in made.assignment if row.node == "/embed"]
    assert why == "embedding: a lookup, cheap on the host"


def test_two_mebibytes(gpt_oss):
    made = plan(gpt_oss, "cpu,cuda:0=2MiB")
    assert [memory.device for memory in made.memory] == ["cpu"]
    assert any("nothing is placed there" in note for note in made.prediction.notes)
    assert any("instead of" in note for note in made.prediction.notes)


def test_a_budget_takes_a_handful_of_lowerings(gpt_oss, monkeypatch):
    calls = []
    lower = planning.lower
    monkeypatch.setattr(planning, "lower", lambda *a: calls.append(1) or lower(*a))
    for vram in (1, 4, 8, 12):
        calls.clear()
        plan(gpt_oss, f"cpu,cuda:0={vram}GiB")
        assert len(calls) <= 12


def test_two_gpus_share_the_layers(gpt_oss):
    made = plan(gpt_oss, "cpu,cuda:0=9GiB,cuda:1=9GiB")
    first, second = (memory.total for memory in made.memory[1:])
    assert 0.75 < first / second < 1.34
    assert made.prediction.handovers <= 4
