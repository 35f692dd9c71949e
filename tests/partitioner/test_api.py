"""`partition`: from a model file to a directory, and placing a plan anew."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import msgspec
import onnx
import pytest
from conftest import MODELS
from kit.native import null_run, program

import moesaic
from moesaic.errors import ModelError, PlacementError, PlanError
from moesaic.partitioner import Plan, api, partition
from moesaic.partitioner.plan import opened
from moesaic.partitioner.plan.writer import encode_plan
from moesaic.plan_format import PlanFile, plan_uuid, tensor_list_digest

CASE = "gpt-oss-mxfp4"
MODEL = MODELS / f"{CASE}.gguf"
BOTH = "cpu,cuda:0=1GiB"


@pytest.fixture
def plan_dir(plan_of, tmp_path):
    """A plan of its own for a test that changes it."""
    return shutil.copytree(plan_of(CASE), tmp_path / "plan")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_directory_holds_what_the_format_says(plan_of):
    folder = plan_of(CASE)
    files = set(contents(folder)) - {"chat_template.jinja"}
    assert files == {
        "README.md",
        "generation_config.json",
        "model.onnx",
        "plan.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "weights.bin",
    }
    onnx.checker.check_model(str(folder / "model.onnx"))


def test_plan_json_agrees_with_the_other_files(plan_of):
    folder = plan_of(CASE)
    file = msgspec.json.decode((folder / "plan.json").read_bytes(), type=PlanFile)
    assert file.model_sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert file.uuid == str(plan_uuid(tensor_list_digest(file.tensors)))
    assert (folder / "weights.bin").read_bytes()[16:32].hex() == file.uuid.replace("-", "")
    assert file.source.file == MODEL.name
    assert file.source.bytes == MODEL.stat().st_size
    assert sum(file.source.types.values()) > len(file.tensors) / 2
    assert program(file)


def test_partition_returns_what_it_wrote(tmp_path):
    made = partition(MODEL, tmp_path / "plan")
    assert made.path == tmp_path / "plan"
    assert made.file == Plan.open(tmp_path / "plan").file
    assert made.facts.architecture == "gpt-oss"
    assert made.placement["/layers.0/moe/experts"] == "cpu"
    assert made.weights_bytes == made.memory[0].weights
    assert "6 experts" in made.summary
    assert "cpu" in made.explain("/layers.0/moe/experts")
    with pytest.raises(PlanError, match="no node"):
        made.explain("/layers.9/moe/experts")


def test_the_same_model_packs_to_the_same_plan(plan_of, tmp_path):
    partition(MODEL, tmp_path / "plan")
    assert contents(tmp_path / "plan") == contents(plan_of(CASE))


def test_defaults(plan_of):
    limits = Plan.open(plan_of(CASE)).limits
    trained = Plan.open(plan_of(CASE)).facts.context_length
    assert msgspec.structs.astuple(limits) == (min(trained, 8192), 8, 512, 32)
    assert {c.dtype for c in Plan.open(plan_of(CASE)).file.caches} == {"f16"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context": 64}, (64, 8, 512, 32)),
        ({"sequences": 100}, (4096, 100, 512, 100)),
        ({"sequences": 100, "batch": 64}, (4096, 100, 64, 64)),
        ({"batch": 1}, (4096, 8, 1, 1)),
    ],
)
def test_limits(options, expected):
    made = partition(MODEL, dry_run=True, **options)
    assert msgspec.structs.astuple(made.limits) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"context": 0},
        {"context": 4097},
        {"context": True},
        {"sequences": 0},
        {"sequences": -1},
        {"batch": 0},
        {"batch": 1 << 20},
        {"batch": 1.5},
        {"kv_type": "q4_0"},
        {"kv_type": ""},
    ],
)
def test_bad_options_are_named(options, plan_of):
    for model in (MODEL, plan_of(CASE)):
        with pytest.raises(PlanError, match=f"^{next(iter(options))}: "):
            partition(model, dry_run=True, **options)


def test_a_dry_run_writes_nothing(tmp_path):
    made = partition(MODEL, tmp_path / "plan", dry_run=True, devices=BOTH)
    assert made.path == tmp_path / "plan"
    assert [m.device for m in made.memory] == ["cpu", "cuda:0"]
    assert list(tmp_path.iterdir()) == []
    assert partition(MODEL, dry_run=True).path is None


def test_an_output_is_needed():
    with pytest.raises(PlanError, match="output"):
        partition(MODEL)


def test_progress_ends_at_the_size_of_the_weights(tmp_path):
    seen = []
    partition(MODEL, tmp_path / "plan", progress=lambda *args: seen.append(args))
    size = (tmp_path / "plan" / "weights.bin").stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


def test_an_existing_plan_is_replaced_only_by_force(tmp_path):
    partition(MODEL, tmp_path / "plan")
    with pytest.raises(PlanError, match="exists"):
        partition(MODELS / "llama-q8_0.gguf", tmp_path / "plan")
    assert Plan.open(tmp_path / "plan").facts.architecture == "gpt-oss"
    partition(MODELS / "llama-q8_0.gguf", tmp_path / "plan", force=True)
    assert Plan.open(tmp_path / "plan").facts.architecture == "llama"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_force_does_not_delete_the_model(plan_dir):
    model = shutil.copy(MODEL, plan_dir / "model.gguf")
    with pytest.raises(PlanError, match="holds the model"):
        partition(model, plan_dir, force=True)
    assert (plan_dir / "model.gguf").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    def stop(done, total):
        raise error

    with pytest.raises(error):
        partition(MODEL, tmp_path / "plan", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_first(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "moesaic.partitioner.plan.writer.shutil.disk_usage",
        lambda path: shutil._ntuple_diskusage(1 << 20, 1 << 20, 4096),
    )
    packed = []
    with pytest.raises(PlanError, match="only 4096 are free") as caught:
        partition(MODEL, tmp_path / "plan", progress=lambda *args: packed.append(args))
    assert caught.value.hint
    assert not packed
    assert list(tmp_path.iterdir()) == []


def test_bad_models_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"x\.gguf"):
        partition(tmp_path / "x.gguf", tmp_path / "plan")
    with pytest.raises(ModelError, match="missing"):
        partition(tmp_path / "missing.gguf", tmp_path / "plan")
    with pytest.raises(PlacementError, match="vram"):
        partition(MODEL, tmp_path / "plan", devices="cpu", vram="1GiB")
    with pytest.raises(PlacementError, match="/"):
        partition(MODEL, tmp_path / "plan", ram="64KiB")
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(api.TokenizerFiles, "write", full)
    with pytest.raises(PlanError, match="cannot be written: No space left") as info:
        partition(MODEL, tmp_path / "plan")
    assert "space" in str(info.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_links_in_a_circle_are_no_model(tmp_path):
    (tmp_path / "x.gguf").symlink_to("x.gguf")
    with pytest.raises(ModelError, match=r"x\.gguf"):
        partition(tmp_path / "x.gguf", tmp_path / "plan")


# Placing anew -----------------------------------------------------------------------------------


def test_a_plan_is_placed_anew_without_touching_its_weights(plan_dir, tmp_path):
    before, stats = contents(plan_dir), (plan_dir / "weights.bin").stat()
    old = Plan.open(plan_dir).file
    made = partition(plan_dir, devices=BOTH)
    after = contents(plan_dir)
    assert {name for name in after if after[name] != before.get(name)} == {
        "README.md",
        "plan.json",
    }
    assert set(after) == set(before)
    assert (plan_dir / "weights.bin").stat().st_mtime_ns == stats.st_mtime_ns
    assert (plan_dir / "weights.bin").stat().st_ino == stats.st_ino
    assert made.file == Plan.open(plan_dir).file
    assert (made.file.uuid, made.file.tensors) == (old.uuid, old.tensors)
    assert made.file.model_sha256 == old.model_sha256
    assert made.placement["/embed"] == "cuda:0"
    null_run(made.file, tmp_path)


def test_placing_back_gives_the_first_plan(plan_dir):
    before = contents(plan_dir)
    partition(plan_dir, devices=BOTH)
    partition(plan_dir, devices="cpu")
    assert contents(plan_dir) == before


def test_what_is_not_asked_for_stays(plan_dir):
    partition(plan_dir, devices=BOTH, context=64, kv_type="f32")
    made = partition(plan_dir, sequences=3)
    assert [(d.name, d.budget) for d in made.file.devices] == [("cpu", None), ("cuda:0", 1 << 30)]
    assert (made.limits.context, made.limits.sequences) == (64, 3)
    assert {c.dtype for c in made.file.caches} == {"f32"}
    made = partition(plan_dir, vram="2GiB", ram="3GiB")
    assert [d.budget for d in made.file.devices] == [3 << 30, 2 << 30]


def test_another_kv_type_changes_the_graph(plan_dir, tmp_path):
    made = partition(plan_dir, kv_type="f32")
    digest = hashlib.sha256((plan_dir / "model.onnx").read_bytes()).hexdigest()
    assert made.file.model_sha256 == digest
    onnx.checker.check_model(str(plan_dir / "model.onnx"))
    partition(MODEL, tmp_path / "fresh", kv_type="f32")
    assert contents(tmp_path / "fresh") == contents(plan_dir)


@pytest.mark.parametrize("kv_type", ["bf16", "q8_0"])
def test_cache_types_of_our_own_leave_the_graph_alone(kv_type, plan_dir, tmp_path):
    before = contents(plan_dir)
    made = partition(plan_dir, kv_type=kv_type)
    assert {c.dtype for c in made.file.caches} == {kv_type}
    after = contents(plan_dir)
    for name in ("plan.json", "README.md"):
        assert after.pop(name) != before.pop(name)
    assert after == before
    partition(MODEL, tmp_path / "fresh", kv_type=kv_type)
    assert contents(tmp_path / "fresh") == contents(plan_dir)
    assert {c.dtype for c in partition(plan_dir, context=64).file.caches} == {kv_type}


class Stopped(BaseException):
    """What ends a process that loses power."""


@pytest.mark.parametrize("then", [{"kv_type": "f32"}, {"kv_type": "q8_0"}, {}])
def test_a_crash_between_graph_and_plan_is_repaired(plan_dir, tmp_path, monkeypatch, then):
    rename = Path.replace

    def stop_at_the_plan(self, target):
        if target.name == "plan.json":
            raise Stopped
        return rename(self, target)

    before = contents(plan_dir)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop_at_the_plan)
        with pytest.raises(Stopped):
            partition(plan_dir, kv_type="f32")
    left = contents(plan_dir)
    assert left.pop("model.onnx") != before.pop("model.onnx")
    assert left == before  # the old plan, which runs
    with pytest.warns(UserWarning, match=r"model\.onnx"), moesaic.Runtime(plan_dir) as rt:
        assert len(rt.generate("ab", max_tokens=2, ignore_eos=True).tokens) == 2
    partition(plan_dir, **then)
    partition(MODEL, tmp_path / "fresh", **then)
    assert contents(tmp_path / "fresh") == contents(plan_dir)


def test_a_failed_placement_changes_nothing(plan_dir):
    before = contents(plan_dir)
    with pytest.raises(PlacementError):
        partition(plan_dir, ram="64KiB")
    with pytest.raises(PlanError):
        partition(plan_dir, context=1 << 30)
    partition(plan_dir, devices=BOTH, dry_run=True)
    assert contents(plan_dir) == before


def test_a_plan_is_not_placed_elsewhere(plan_dir, tmp_path):
    with pytest.raises(PlanError, match="already"):
        partition(plan_dir, tmp_path / "other")
    partition(plan_dir, plan_dir)


def test_another_graph_is_refused(plan_dir, plan_of):
    shutil.copy(plan_of("llama-q8_0") / "model.onnx", plan_dir)
    with pytest.raises(PlanError, match=r"model\.onnx is not the graph"):
        partition(plan_dir)
    (plan_dir / "model.onnx").unlink()
    with pytest.raises(PlanError, match=r"model\.onnx"):
        partition(plan_dir)


def test_a_folder_that_is_no_plan_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"plan\.json is missing"):
        partition(tmp_path, tmp_path / "plan")


def test_damage_is_not_papered_over(plan_dir):
    path = plan_dir / "plan.json"
    plan = json.loads(path.read_text())
    plan["tensors"][0]["bytes"] += 64
    path.write_text(json.dumps(plan))
    before = contents(plan_dir)
    with pytest.raises(PlanError, match="uuid"):
        partition(plan_dir, context=64)
    assert contents(plan_dir) == before


def test_weights_that_are_gone_or_cut_are_noticed(plan_dir):
    weights = plan_dir / "weights.bin"
    os.truncate(weights, weights.stat().st_size - 4096)
    before = contents(plan_dir)
    with pytest.raises(PlanError, match=r"weights\.bin: expected"):
        partition(plan_dir, context=64)
    assert contents(plan_dir) == before
    weights.unlink()
    with pytest.raises(PlanError, match=r"weights\.bin is missing"):
        partition(plan_dir, context=64)


def test_a_damaged_plan_is_named(plan_dir):
    for text in ("{", "[" * 10000, "{}", json.dumps({"format": "x"})):
        (plan_dir / "plan.json").write_text(text)
        with pytest.raises(PlanError, match=r"plan\.json"):
            partition(plan_dir)
    (plan_dir / "plan.json").unlink()
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.open(plan_dir)


def test_another_version_is_named(plan_dir):
    file = msgspec.structs.replace(Plan.open(plan_dir).file, version=99)
    (plan_dir / "plan.json").write_bytes(encode_plan(file))
    with pytest.raises(PlanError, match="99"):
        Plan.open(plan_dir)


def test_the_package_exports_lazily():
    assert moesaic.partition is api.partition
    assert moesaic.Plan is opened.Plan
    assert set(moesaic.__all__) <= set(dir(moesaic))
    with pytest.raises(AttributeError, match="nonsense"):
        moesaic.nonsense  # noqa: B018
