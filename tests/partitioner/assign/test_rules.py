"""``--place`` and ``--usage``: what the user wants overrules what would be chosen."""

import json

import msgspec
import pytest
from conftest import MODELS
from kit.native import null_run
from kit.placing import plan

from moesaic import _pack
from moesaic.errors import PlacementError, PlanError
from moesaic.machine_facts import this_machine, write_facts
from moesaic.partitioner import partition
from moesaic.partitioner.assign import rules
from moesaic.partitioner.memory import CUDA_RESERVE
from moesaic.plan_format import Facts
from moesaic.usage_format import FORMAT, VERSION, Usage

MODEL = MODELS / "gpt-oss-mxfp4.gguf"
BOTH = "cpu,cuda:0"


def where(made, node):
    return {row.device for row in made.assignment if row.node == node}


def usage(**changes) -> Usage:
    counts = {f"/layers.{i}/moe/experts": [1, 50, 2, 3, 90, 4] for i in range(2)}
    fields = {"format": FORMAT, "version": VERSION, "architecture": "gpt-oss", "tokens": 100}
    return Usage(**(fields | {"experts": counts} | changes))


def test_rules_overrule_and_the_last_wins(tmp_path):
    rules = ["experts=cuda:0", r"layers\.1/moe/experts=cpu", "lm_head=cpu"]
    made = plan(MODEL, BOTH, place=rules)
    assert where(made, "/layers.0/moe/experts") == {"cuda:0"}
    assert where(made, "/layers.1/moe/experts") == {"cpu"}
    assert where(made, "/lm_head") == {"cpu"}
    row = next(row for row in made.assignment if row.node == "/lm_head")
    assert row.why == "--place 'lm_head=cpu'"
    assert made.wishes.place == rules
    null_run(made, tmp_path)


@pytest.mark.parametrize("rule", ["attn/=cpu", "/attention=cuda:0", "moe/route=cpu", "embed=cuda"])
@pytest.mark.parametrize("devices", [BOTH, "cpu,cuda:0=392MiB", "cpu,cuda:0=1GiB"])
def test_any_node_may_be_anywhere(rule, devices, tmp_path):
    made = plan(MODEL, devices, place=[rule])
    null_run(made, tmp_path)
    copies = sum(step.op == "Copy" for step in made.program)
    on_host = next(b for b in made.buffers if b.name == "logits").device == "cpu"
    assert made.prediction.handovers == copies + (not on_host)


@pytest.mark.parametrize(
    ("rule", "message", "hint"),
    [
        ("expert", "is not REGEX=DEVICE", "write rules like"),
        ("=cpu", "is not REGEX=DEVICE", "write rules like"),
        ("[=cpu", "unterminated", "write rules like"),
        ("a{99999999999}=cpu", "repetition", "write rules like"),
        ("(" * 5000 + "=cpu", "recursion", "write rules like"),
        ("experts=cuda:7", "names cuda:7, the plan has cpu, cuda:0", "add the device"),
        ("experts=", "names no device", "add the device"),
        ("/layers.0/moe/expert$=cpu", "matches no node", "/layers.0/moe/experts"),
        ("zzzz=cpu", "matches no node", "/embed"),
        ("/positions=cpu", "matches no node", "there are nodes like"),
    ],
)
def test_wrong_rules_are_named(rule, message, hint):
    with pytest.raises(PlacementError, match=r"^place: ") as caught:
        plan(MODEL, BOTH, place=[rule])
    assert repr(rule) in str(caught.value) and message in str(caught.value)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "rule", ["(.+)+!=cpu", "(.|.)*!=cpu", "(.*)*(.*)*!=cpu", "(.?){9}" * 9 + "!=cpu"]
)
def test_a_rule_that_would_search_for_ever(rule, monkeypatch):
    monkeypatch.setattr(rules, "MOST_SECONDS", 0.5)
    with pytest.raises(PlacementError, match=r"the search takes more than 0\.5 s") as caught:
        plan(MODEL, BOTH, place=[rule])
    assert repr(rule) in str(caught.value) and "repetition" in caught.value.hint


def test_a_plan_that_asks_for_such_a_search(tmp_path, monkeypatch):
    partition(MODEL, tmp_path / "plan")
    path = tmp_path / "plan" / "plan.json"
    document = json.loads(path.read_text())
    document["wishes"]["place"] = ["(.+)+!=cpu"]
    path.write_text(json.dumps(document))
    monkeypatch.setattr(rules, "MOST_SECONDS", 0.5)
    with pytest.raises(PlacementError, match="the search takes more than"):
        partition(tmp_path / "plan", context=64)
    assert json.loads(path.read_text()) == document


@pytest.mark.parametrize("rule", ["layers.*/moe/(route|experts)$=cuda:0", ".*experts=cuda:0"])
def test_rules_with_choices_match_as_any(rule):
    made = plan(MODEL, BOTH, place=[rule])
    assert where(made, "/layers.1/moe/experts") == {"cuda:0"}


def test_rules_that_contradict_a_budget():
    with pytest.raises(PlacementError, match=r"^cuda:0: .*node that does not fit is /") as caught:
        plan(MODEL, "cpu,cuda:0=385MiB", place=[".*=cuda:0"])
    assert "raise vram" in caught.value.hint and "place less on cuda:0" in caught.value.hint


@pytest.fixture
def slow_host(tmp_path, monkeypatch):
    """A host on which even the experts of a tiny model take longer than copies do."""
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "cache"))
    slow = Facts(read_bandwidth=1e7, int8_rate=1e9, float_rate=1e9, latency=5e-6)
    write_facts(this_machine(_pack.usable_cores()), {"cpu": slow})


def test_the_most_used_experts_go_first(tmp_path, slow_host):
    seen = set()
    for room in range(CUDA_RESERVE, CUDA_RESERVE + (8 << 20), 64 << 10):
        made = plan(MODEL, f"cpu,cuda:0={room}", usage=usage())
        assert made.memory[-1].total <= room or made.memory[-1].device == "cpu"
        seen |= {row.why for row in made.assignment if row.why.startswith("usage: ")}
        for step in made.program:
            if step.experts is not None and step.device == "cuda:0":
                assert step.experts == sorted([4, 1, 5, 3, 2, 0][: len(step.experts)])
        null_run(made, tmp_path)
        copies = sum(step.op == "Copy" for step in made.program)
        on_host = next(b for b in made.buffers if b.name == "logits").device == "cpu"
        assert made.prediction.handovers == copies + (not on_host)
    assert any(why.startswith("usage: hottest ") for why in seen)
    assert any(why.startswith("usage: the other ") for why in seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "llama"}, "architecture: the profile is of 'llama'"),
        ({"experts": {}}, "experts: the profile lacks '/layers."),
        (
            {"experts": usage().experts | {"/layers.9/moe/experts": [1]}},
            "experts: the model lacks '/layers.9/moe/experts'",
        ),
        (
            {"experts": usage().experts | {"/layers.1/moe/experts": [1, 2]}},
            "experts: '/layers.1/moe/experts' has 2 counts, the model has 6",
        ),
    ],
)
def test_profiles_of_other_models_are_refused(changes, message, tmp_path):
    path = tmp_path / "usage.json"
    path.write_bytes(msgspec.json.encode(usage(**changes)))
    with pytest.raises(PlanError) as caught:
        partition(MODEL, dry_run=True, devices=BOTH, usage=path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "--record-usage" in caught.value.hint


# Placing anew ---------------------------------------------------------------------------------


def test_wishes_stay_until_others_are_made(tmp_path):
    path, folder = tmp_path / "usage.json", tmp_path / "plan"
    path.write_bytes(msgspec.json.encode(usage()))
    first = partition(MODEL, folder, vram="400MiB", place="lm_head=cpu", usage=path)
    assert first.file.wishes.usage == usage()
    path.unlink()
    again = partition(folder, context=64)
    assert again.file.wishes == first.file.wishes
    assert again.placement["/lm_head"] == "cpu"
    changed = partition(folder, place="", usage="", vram="500MiB")
    assert changed.file.wishes.place == [] and changed.file.wishes.usage is None
    assert changed.file.wishes.devices == {"cpu": None, "cuda:0": 500 << 20}


def test_a_recorded_profile_is_checked_again(tmp_path):
    folder = tmp_path / "plan"
    partition(MODEL, folder, devices=BOTH)
    file = json.loads((folder / "plan.json").read_text())
    counts = {name: [-1] * 6 for name in usage().experts}
    file["wishes"]["usage"] = msgspec.to_builtins(usage(experts=counts))
    (folder / "plan.json").write_text(json.dumps(file))
    with pytest.raises(PlanError, match="negative counts"):
        partition(folder, context=64)


def test_rules_for_devices_that_are_gone_are_dropped_with_a_note(tmp_path):
    folder = tmp_path / "plan"
    partition(MODEL, folder, devices=BOTH, place=["experts=cuda:0", "lm_head=cpu"])
    made = partition(folder, devices="cpu")
    assert made.file.wishes.place == ["lm_head=cpu"]
    assert any("'experts=cuda:0' no longer holds" in note for note in made.file.prediction.notes)


def test_a_budget_that_places_nothing_is_remembered(tmp_path):
    folder = tmp_path / "plan"
    made = partition(MODEL, folder, vram="2MiB")
    assert set(made.placement.values()) == {"cpu"}
    assert partition(folder, context=64).file.wishes.devices == {"cpu": None, "cuda:0": 2 << 20}
    assert "cuda:0" in partition(folder, vram="1GiB").placement.values()
    assert json.loads((folder / "plan.json").read_text())["wishes"]["devices"]["cuda:0"] == 1 << 30


def test_a_dry_run_checks_what_writing_would_need(tmp_path):
    made = partition(MODEL, tmp_path / "plan", dry_run=True)
    assert made.disk_bytes > made.weights_bytes and made.disk_free > made.disk_bytes
    assert made.file.model_sha256
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(PlanError, match="full"):
        partition(MODEL, tmp_path / "full", dry_run=True)
