"""`moesaic inspect`, as a user calls it: plans, and model files of any kind."""

import json
import os
import re
import shutil
import sys
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from conftest import MODELS
from gguf import GGMLQuantizationType, GGUFReader, quants
from kit import many_layers, tiny_gguf
from kit.command import as_json, refused, run, shown
from kit.edited_gguf import edited
from kit.split_gguf import split
from kit.terminal import Terminal
from kit.tiny_gguf import Tensor

import moesaic
from moesaic.demo import DEMO_MODEL

HOSTILE = "evil\x1b]0;owned\x07\x9b31m\u202e\nhint: run rm\r"
CONTROLS = [chr(c) for c in (*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2066)]


@pytest.fixture(scope="module")
def wide_plan(tmp_path_factory):
    """A plan for a host and two GPUs, which are not needed to look at it."""
    return many_layers.write(many_layers.many_layers(61, 2), tmp_path_factory.mktemp("plans"))


@pytest.fixture
def copied(demo_plan, tmp_path):
    return shutil.copytree(demo_plan, tmp_path / "plan")


def edit(folder, change):
    path = folder / "plan.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))


# Plans.


def test_the_report_names_model_limits_devices_and_memory(demo_plan, wide_plan):
    file = moesaic.Plan.open(demo_plan).file
    text = shown("inspect", demo_plan)
    for word in ("moesaic demo (gpt-oss)", "demo.gguf", "licence", "context 1024", file.uuid):
        assert word in text
    text = shown("inspect", wide_plan)
    assert "cpu (EP, budget 400.00 GiB); cuda:0 (EP, budget 24.00 GiB)" in text
    lines = [line.split() for line in text.splitlines()]
    memory = next(line for line in lines if line[:1] == ["cuda:0"])
    assert memory[1:3] == ["14.08", "GiB"] and memory[-3:] == ["GiB", "66.5", "%"]
    experts = [line for line in lines if line[:1] == ["/layers.*/moe/experts"]]
    assert experts == [
        ["/layers.*/moe/experts", "cuda:0", "2", "5.00", "GiB", "0-1"],
        ["/layers.*/moe/experts", "cpu", "59", "234.00", "GiB", "0,", "2-31,", "33-60"],
        ["/layers.*/moe/experts", "cuda:1", "2", "5.00", "GiB", "31-32"],
    ]


@pytest.mark.parametrize("gpus", [0, 1])
def test_json_holds_the_same_numbers_as_the_plan(tmp_path, gpus):
    devices = ("cpu=64MiB", "cuda:0=1GiB")[: gpus + 1]
    file = moesaic.partition(DEMO_MODEL, tmp_path / "plan", devices=",".join(devices)).file
    report = as_json("inspect", tmp_path / "plan")
    assert report["kind"] == "plan" and report["uuid"] == file.uuid
    assert report["memory"] == msgspec.to_builtins(file.memory)
    assert report["devices"] == msgspec.to_builtins(file.devices)
    assert report["placement"] == msgspec.to_builtins(file.assignment)
    assert report["kv_types"] == ["f16"]
    assert report["weights_bytes"] == sum(tensor.bytes for tensor in file.tensors)
    assert not {"tensors", "program", "why", "verified"} & report.keys()
    for memory in file.memory:
        classes = report["weights_by_class"][memory.device]
        assert list(classes) == ["embed", "dense", "experts", "head"]
        assert sum(classes.values()) == memory.weights
    stacks = sum(tensor.bytes for tensor in file.tensors if tensor.count > 1)
    assert sum(row["experts"] for row in report["weights_by_class"].values()) == stacks


@pytest.mark.parametrize("case", ["llama-tied-f32", "mixtral-k-quants", "gemma3-mixed"])
def test_weights_by_class_add_up(plan_of, case):
    report = as_json("inspect", plan_of(case))
    (memory,) = report["memory"]
    assert sum(report["weights_by_class"]["cpu"].values()) == memory["weights"]
    assert (report["weights_by_class"]["cpu"]["experts"] > 0) == case.startswith("mixtral")


def test_why_is_summarised_by_class_and_layers(wide_plan, demo_plan):
    lines = [line.split() for line in shown("inspect", wide_plan, "--why").splitlines()]
    assert ["dense", "cuda:1", "31-60", "8.79", "GiB", "dense", "first"] in lines
    experts = [line for line in lines if line[:1] == ["experts"]]
    assert experts == [
        ["experts", "cuda:0", "0-1", "5.00", "GiB", "room"],
        ["experts", "cpu", "0,", "2-31,", "33-60", "234.00", "GiB", "the", "rest"],
        ["experts", "cuda:1", "31-32", "5.00", "GiB", "room"],
    ]
    assert "the only device" in shown("inspect", demo_plan, "--why")


def test_why_of_nodes_that_match(wide_plan, demo_plan):
    text = shown("inspect", demo_plan, r"layers\.2/.*(q_proj|experts)", "--why")
    assert "/layers.2/attn/q_proj" in text and "/layers.2/moe/experts" in text
    assert "/layers.1/" not in text and "k_proj" not in text
    assert shown("inspect", demo_plan, r"layers\.2/.*(q_proj|experts)") == text
    rows = as_json("inspect", wide_plan, r"\.[01]/.*experts", "--why")["why"]
    assert [(row["node"], row["device"], row["why"]) for row in rows] == [
        ("/layers.0/moe/experts", "cuda:0", "room"),
        ("/layers.0/moe/experts", "cpu", "the rest"),
        ("/layers.1/moe/experts", "cuda:0", "room"),
    ]
    assert all(row["why"] for row in as_json("inspect", demo_plan, "--why")["why"])


def test_a_pattern_that_matches_nothing_is_said(demo_plan):
    result = run("inspect", demo_plan, "layers.99/")
    assert result.exit_code == 0
    assert "no node matches 'layers.99/'" in result.stderr


def test_predicted_speed_says_what_it_rests_on(copied, wide_plan):
    text = shown("inspect", wide_plan)
    speed = [line.split() for line in text[text.index("Speed") :].splitlines()]
    assert ["cpu", "62.500", "750.000", "40.0", "800.0", "200.0", "measured"] in speed
    assert ["cuda:1", "62.500", "750.000", "900.0", "9000.0", "4000.0", "assumed"] in speed
    assert "12.2 tokens/s after 1024 tokens" in text and "345.5 tokens/s" in text
    assert "experts of most layers stay" in text
    assert as_json("inspect", wide_plan)["prediction"]["decode_tokens_per_second"] == 12.25
    edit(copied, lambda spec: spec.update(prediction=None))
    assert "not predicted" in shown("inspect", copied)
    assert as_json("inspect", copied)["prediction"] is None


def test_a_pattern_that_is_no_regular_expression(demo_plan):
    assert "is not a regular expression" in refused("inspect", demo_plan, "(", "--why")


def test_a_narrow_terminal_shows_every_number(wide_plan):
    with Terminal("inspect", wide_plan, COLUMNS="60") as terminal:
        terminal.expect("Memory (planned)")
        table = terminal.expect("Placement")
    lines = [line.split() for line in table.splitlines() if line.strip()]
    assert lines[0] == ["device", "cpu", "cuda:0", "cuda:1"]
    assert {"weights", "activations", "reserve", "total", "used"} <= {line[0] for line in lines}
    assert "\u2026" not in table and all(len(line) <= 60 for line in table.splitlines())


def test_tensors_and_program(demo_plan):
    file = moesaic.Plan.open(demo_plan).file
    text = shown("inspect", demo_plan, "--tensors")
    for tensor in file.tensors:
        assert tensor.name in text and tensor.xxh3 in text
    report = as_json("inspect", demo_plan, "--tensors", "--program")
    assert report["tensors"] == msgspec.to_builtins(file.tensors)
    assert report["program"] == msgspec.to_builtins(file.program)
    assert len(as_json("inspect", demo_plan, "ffn_exps", "--tensors")["tensors"]) == 4
    steps = shown("inspect", demo_plan, "layers.0/", "--program")
    assert "Attention" in steps and "Experts" in steps and "layers.1" not in steps


def test_an_intact_plan_is_verified(demo_plan):
    assert shown("inspect", demo_plan, "--verify").startswith("verified: 60 tensors, ")
    found = as_json("inspect", demo_plan, "--verify")["verified"]
    assert found == {
        "tensors": 60,
        "weights_bytes": (demo_plan / "weights.bin").stat().st_size,
        "model_bytes": (demo_plan / "model.onnx").stat().st_size,
    }


@pytest.mark.parametrize("index", [0, 7, 33, -1])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_changed_byte_names_its_tensor(copied, index, place):
    tensor = moesaic.Plan.open(copied).file.tensors[index]
    with (copied / "weights.bin").open("r+b") as stream:
        stream.seek(tensor.offset + int(place * (tensor.bytes - 1)))
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    said = refused("inspect", copied, "--verify")
    assert repr(tensor.name) in said and tensor.xxh3 in said
    assert said.count("tensor '") == 1
    shown("inspect", copied)  # which does not look at weights


def test_every_damaged_tensor_counts(copied):
    file = moesaic.Plan.open(copied).file
    with (copied / "weights.bin").open("r+b") as stream:
        for tensor in file.tensors:
            stream.seek(tensor.offset)
            stream.write(bytes(255 - b for b in stream.read(4)) and b"\xa5\x5a\xa5\x5a")
    said = refused("inspect", copied, "--verify")
    assert repr(file.tensors[0].name) in said and "and 55 more" in said


def test_bytes_between_tensors_must_be_zero(copied):
    file = moesaic.Plan.open(copied).file
    ordered = sorted(file.tensors, key=lambda t: t.offset)
    end = next(a.offset + a.bytes for a, b in pairwise(ordered) if a.offset + a.bytes < b.offset)
    with (copied / "weights.bin").open("r+b") as stream:
        stream.seek(end)
        stream.write(b"\1")
    assert f"bytes {end} to " in refused("inspect", copied, "--verify")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("weights.bin", lambda data: b"x" + data[1:], "is not a weights file"),
        ("weights.bin", lambda data: data[:40] + b"x" + data[41:], "header does not fit"),
        ("weights.bin", lambda data: data[:-1], "bytes, got"),
        ("model.onnx", lambda data: data[:-1] + b"\0", "model.onnx: sha256"),
        ("model.onnx", lambda data: None, "model.onnx is missing"),
        ("plan.json", lambda data: data[:-10], "plan.json"),
    ],
)
def test_every_file_is_verified(copied, name, change, said):
    data = change((copied / name).read_bytes())
    (copied / name).unlink()
    if data is not None:
        (copied / name).write_bytes(data)
    assert said in refused("inspect", copied, "--verify")


def test_a_folder_that_is_no_plan_or_cannot_be_read(tmp_path, copied):
    assert "plan.json is missing" in refused("inspect", tmp_path)
    assert "no such file" in refused("inspect", tmp_path / "none")
    (copied / "weights.bin").unlink()
    (copied / "weights.bin").mkdir()
    assert "weights.bin is not a regular file" in refused("inspect", copied, "--verify")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights(copied):
    copied.chmod(0)
    try:
        assert "Permission denied" in refused("inspect", copied)
    finally:
        copied.chmod(0o755)


def test_names_in_a_plan_cannot_speak_to_the_terminal(copied):
    def change(spec):
        spec["model"] |= {"name": HOSTILE, "architecture": HOSTILE}
        spec["source"] |= {"file": HOSTILE, "types": {HOSTILE: 1}}
        spec["source"]["origin"] |= {"license": HOSTILE}
        spec["devices"][0]["provider"] = HOSTILE
        spec["assignment"][0] |= {"node": "/layers.0/" + HOSTILE, "device": HOSTILE}
        spec["program"][0]["outputs"] = [HOSTILE]

    edit(copied, change)
    for options in ((), ("--why",), ("--tensors",), ("--program",), ("--json",), ("evil",)):
        text = shown("inspect", copied, *options)
        assert not [c for c in CONTROLS if c in text]
        assert "\nhint" not in text
    assert as_json("inspect", copied)["model"]["name"] == HOSTILE
    edit(copied, lambda spec: spec.update(format=HOSTILE))
    said = refused("inspect", copied)
    assert not [c for c in CONTROLS if c in said]
    assert r"\x1b" in said and said.count("\nhint:") == 1


# Model files.


def test_a_supported_model(tmp_path):
    text = shown("inspect", DEMO_MODEL)
    assert "moesaic demo" in text and "63.2 % of the bytes" in text
    assert "gpt2, pre-tokenizer gpt-2, 2048 tokens" in text and "211 characters" in text
    assert "Memory of a plan with default options" in text
    report = as_json("inspect", DEMO_MODEL)
    assert report["kind"] == "model" and report["supported"] and report["problem"] is None
    plan = moesaic.partition(DEMO_MODEL, dry_run=True)
    assert report["default_plan"]["memory"] == msgspec.to_builtins(plan.memory)


@pytest.mark.parametrize("case", sorted(path.stem for path in MODELS.glob("*.gguf")))
def test_bytes_by_type_and_class_agree_with_the_gguf_package(case):
    path = MODELS / f"{case}.gguf"
    tensors = GGUFReader(path).tensors
    report = as_json("inspect", path, "--tensors")
    total = sum(int(t.n_bytes) for t in tensors)
    assert sum(row["bytes"] for row in report["types"]) == total == report["tensor_bytes"]
    assert sum(row["bytes"] for row in report["classes"]) == total
    for row in report["types"]:
        own = [t for t in tensors if t.tensor_type.name == row["type"]]
        assert row["tensors"] == len(own)
        assert row["parameters"] == sum(int(t.n_elements) for t in own)
    expert = re.compile(r"_exps\.|ffn_(gate|up|down)\.\d+\.")
    experts = sum(int(t.n_bytes) for t in tensors if expert.search(t.name))
    assert report["expert_bytes"] == experts
    assert {(t["name"], tuple(t["shape"])) for t in report["tensors"]} == {
        (t.name, tuple(map(int, reversed(t.shape)))) for t in tensors
    }
    assert report["supported"] and report["tokenizer"]["tokens"] > 0


def _numbered(name):
    return (
        name.split(".")[2].removeprefix("ffn_") in ("gate", "up", "down") and name.count(".") == 4
    )


def test_metadata_is_shortened_for_people_and_bounded_as_json():
    text = shown("inspect", DEMO_MODEL)
    line = next(line for line in text.splitlines() if "tokenizer.ggml.tokens" in line)
    assert "array of 2048 string" in line and "…" in line and len(line.rstrip()) < 300
    entry = as_json("inspect", DEMO_MODEL)["metadata"]["tokenizer.ggml.tokens"]
    assert entry["length"] == 2048 and len(entry["value"]) == 1024
    assert (
        entry["value"] == GGUFReader(DEMO_MODEL).fields["tokenizer.ggml.tokens"].contents()[:1024]
    )


def test_an_unknown_architecture_is_shown_all_the_same(tmp_path):
    row = np.zeros((4, 256), np.float32)
    path = tiny_gguf.write(
        tmp_path / "new.gguf",
        {
            "general.architecture": "brand-new",
            "brand-new.odd": [float("nan"), 1.0],
            "nested": tiny_gguf.array(
                tiny_gguf.T.ARRAY, [tiny_gguf.array(tiny_gguf.T.STRING, ["a"])[4:]]
            ),
        },
        [
            Tensor.of("token_embd.weight", row),
            Tensor.of("blk.0.ffn_gate_exps.weight", np.zeros((2, 4, 32), np.float32)),
            Tensor.of("blk.0.ffn_gate_shexp.weight", row),
            Tensor("blk.0.ffn_up.7.weight", (4, 256), GGMLQuantizationType.IQ2_XXS, bytes(4 * 66)),
            Tensor.of("output.weight", row),
        ],
    )
    text = shown("inspect", path)
    assert "'brand-new' is not supported" in text and "supported are" in text
    assert "IQ2_XXS" in text and "none yet" in text
    report = as_json("inspect", path, "--tensors")
    assert not report["supported"] and report["default_plan"] is None
    assert "brand-new" in report["problem"] and "gpt-oss" in report["supported_architectures"]
    assert [t["class"] for t in report["tensors"]] == [
        "embed",
        "experts",
        "dense",
        "experts",
        "head",
    ]
    assert report["metadata"]["brand-new.odd"]["value"] == [None, 1.0]
    assert "not supported" in refused("inspect", path, "--why")
    assert "not supported" in refused("inspect", path, "--plot", tmp_path / "x.png")


def test_a_split_model_is_one_model(tmp_path):
    whole = as_json("inspect", DEMO_MODEL, "--tensors")
    (tmp_path / "parts").mkdir()
    parts = as_json("inspect", split(DEMO_MODEL, tmp_path / "parts", (20, 30)), "--tensors")
    assert [part["bytes"] for part in parts["files"]] == [
        path.stat().st_size for path in sorted((tmp_path / "parts").iterdir())
    ]
    assert len(parts["files"]) == 3 and len({t["file"] for t in parts["tensors"]}) == 3
    for key in ("types", "classes", "expert_bytes", "tensor_count", "tokenizer", "default_plan"):
        assert parts[key] == whole[key]
    assert "00003-of-00003.gguf" in shown("inspect", tmp_path / "parts" / parts["files"][0]["file"])


def test_a_type_or_a_tokenizer_that_is_not_supported_is_the_reason(tmp_path):
    source = MODELS / "llama-f32.gguf"
    weight = next(t for t in GGUFReader(source).tensors if t.name == "blk.0.attn_q.weight")
    kind = GGMLQuantizationType.Q4_1
    values = quants.quantize(np.array(weight.data, np.float32), kind)
    shape = [int(n) for n in reversed(weight.shape)]
    odd = Tensor(weight.name, shape, kind, values.tobytes())
    path = edited(source, tmp_path / "odd.gguf", tensors={weight.name: odd})
    report = as_json("inspect", path)
    if not report["supported"]:  # a further type may have become one that is
        assert "Q4_1" in report["problem"]
    path = edited(source, tmp_path / "rwkv.gguf", keys={"tokenizer.ggml.model": "rwkv"})
    report = as_json("inspect", path)
    assert not report["supported"] and "tokenizer.ggml.model" in report["problem"]


def test_a_model_file_has_nothing_to_verify():
    assert "no hashes to verify" in refused("inspect", DEMO_MODEL, "--verify")


def test_the_plan_of_a_model_file_can_be_looked_at():
    assert "/layers.3/moe/experts" in shown("inspect", DEMO_MODEL, "layers.3/")
    assert "Attention" in shown("inspect", DEMO_MODEL, "--program")
    names = [t.name for t in GGUFReader(DEMO_MODEL).tensors]
    assert all(name in shown("inspect", DEMO_MODEL, "--tensors") for name in names)


def test_names_in_a_model_file_cannot_speak_to_the_terminal(tmp_path):
    path = tiny_gguf.write(
        tmp_path / "hostile.gguf",
        {
            "general.architecture": "llama",
            "general.name": HOSTILE,
            "tokenizer.ggml.model": HOSTILE,
            "tokenizer.ggml.pre": HOSTILE,
            HOSTILE: [HOSTILE, HOSTILE],
        },
        [Tensor.of(HOSTILE, np.zeros((1, 32), np.float32))],
    )
    for options in ((), ("--tensors",), ("--json",), ("--json", "--tensors")):
        text = shown("inspect", path, *options)
        assert not [c for c in CONTROLS if c in text]
        assert "\nhint" not in text
    said = refused("inspect", path, "--why")
    assert not [c for c in CONTROLS if c in said] and said.count("\nhint:") == 1
    assert as_json("inspect", path, "--tensors")["tensors"][0]["name"] == HOSTILE


def test_metadata_of_another_type_than_expected(tmp_path):
    keys = {
        "general.architecture": 7,
        "general.name": ["a", "b"],
        "tokenizer.ggml.tokens": "none",
        "tokenizer.chat_template": 1.5,
    }
    path = tiny_gguf.write(tmp_path / "odd.gguf", keys)
    assert "expected a string" in shown("inspect", path)
    report = as_json("inspect", path)
    assert not report["supported"] and report["tokenizer"]["tokens"] is None
    empty = as_json("inspect", tiny_gguf.write(tmp_path / "empty.gguf"))
    assert empty["architecture"] is None and not empty["supported"]


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK\3\4" + bytes(100)])
def test_a_damaged_model_file_is_refused(tmp_path, data):
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    assert "bad.gguf" in refused("inspect", path)


# Plots.

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", MAGIC)
def test_plots_of_plans_and_models(wide_plan, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    for name, source in (("plan", wide_plan), ("model", DEMO_MODEL)):
        target = tmp_path / f"{name}.{suffix}"
        result = run("inspect", source, "--plot", target)
        assert result.exit_code == 0, result.stderr
        assert str(target) in result.stderr and result.stdout == ""
        assert target.read_bytes().startswith(MAGIC[suffix])


def test_a_plan_for_another_machine_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    target, options = tmp_path / "memory.svg", ("--dry-run", "--devices", "cpu,cuda:0=1GiB")
    result = run("partition", DEMO_MODEL, *options, "--plot", target)
    assert result.exit_code == 0 and str(target) in result.stderr
    assert target.read_bytes().startswith(MAGIC["svg"])
    plan = tmp_path / "plan"
    assert ".png" in refused("partition", DEMO_MODEL, "-o", plan, "--plot", tmp_path / "memory")
    assert not plan.exists()


@pytest.mark.parametrize("name", ["memory", "memory.bmp", "memory.exe"])
def test_other_suffixes_are_refused(demo_plan, tmp_path, name):
    said = refused("inspect", demo_plan, "--plot", tmp_path / name)
    assert ".png, .svg, .pdf" in said
    assert list(tmp_path.iterdir()) == []


def test_a_plot_that_cannot_be_written(demo_plan, tmp_path):
    pytest.importorskip("matplotlib")
    said = refused("inspect", demo_plan, "--plot", tmp_path / "none" / "memory.png")
    assert "cannot be written" in said


def test_without_matplotlib_the_extra_is_named(demo_plan, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused("inspect", demo_plan, "--plot", tmp_path / "memory.png")
    assert "pip install 'moesaic[plot]'" in said
