"""A model file opens like a plan, by way of the cache."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import MODELS
from kit.split_gguf import split

import moesaic
from moesaic import plan_cache
from moesaic.runtime import Runtime as PlanRuntime

MODEL = MODELS / "llama-q8_0.gguf"
GREEDY = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}

OPEN = """
import sys, moesaic
with moesaic.Runtime(sys.argv[1]) as rt:
    print(rt.generate("ab", max_tokens=6, temperature=0, ignore_eos=True).tokens)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOESAIC_CACHE", str(folder))
    return folder


@pytest.fixture
def no_partitioning(monkeypatch):
    """From its call on, reading or partitioning a model file fails."""

    def forbid():
        def refuse(*args, **options):
            raise AssertionError("the model file is touched")

        monkeypatch.setattr("moesaic.partitioner.partition", refuse)
        monkeypatch.setattr("moesaic.partitioner.gguf.read_gguf", refuse)

    return forbid


def generated(model, **limits):
    with moesaic.Runtime(model, **limits) as rt:
        return rt.generate("ab", **GREEDY).tokens


def only_entry():
    (entry,) = plan_cache.entries()
    return entry


def changed_copy(target):
    """A copy of the model with one weight of the last tensor changed."""
    data = bytearray(MODEL.read_bytes())
    data[-20] ^= 1
    target.write_bytes(data)
    return target


def process(model, *, code=OPEN):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_opens_a_model_file(plan_of, capsys):
    seen = []
    with moesaic.Runtime(MODEL, progress=lambda done, total: seen.append((done, total))) as rt:
        assert isinstance(rt, PlanRuntime)
        tokens = rt.generate("ab", **GREEDY).tokens
    assert tokens == generated(plan_of("llama-q8_0"))
    assert seen[-1][0] == seen[-1][1] > 0
    said = capsys.readouterr()
    assert said.out == ""
    assert str(MODEL) in said.err and str(only_entry().folder) in said.err
    assert only_entry().source == MODEL
    assert only_entry().record.architecture == "llama"


def test_the_second_time_nothing_is_read_or_said(capsys, no_partitioning):
    first = generated(MODEL)
    capsys.readouterr()
    no_partitioning()
    assert generated(MODEL) == first
    assert capsys.readouterr().err == ""


def test_a_copy_of_the_file_is_the_same_model(tmp_path, monkeypatch):
    first = generated(MODEL)
    copy = Path(shutil.copy(MODEL, tmp_path / "copy.gguf"))
    monkeypatch.setattr("moesaic.partitioner.partition", None)
    assert generated(copy) == first
    assert only_entry().source == copy


def test_another_content_under_the_same_name(tmp_path):
    model = Path(shutil.copy(MODEL, tmp_path / "model.gguf"))
    generated(model)
    before = model.stat()
    changed_copy(model)
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some copying tools do
    generated(model)
    assert len(plan_cache.entries()) == 2


def test_limits_are_raised_without_disturbing_who_has_it_open(capsys):
    with moesaic.Runtime(MODEL) as first:
        usual = first.limits
        capsys.readouterr()
        with moesaic.Runtime(MODEL, sequences=usual["sequences"] + 1, context=64) as second:
            assert second.limits["sequences"] == usual["sequences"] + 1
            assert second.limits["context"] == 64
            assert second.generate("ab", **GREEDY).tokens == first.generate("ab", **GREEDY).tokens
        assert "anew" in capsys.readouterr().err
        assert first.limits == usual
    with moesaic.Runtime(MODEL) as third:
        assert third.limits == usual
    with pytest.raises(moesaic.PlanError, match="context: expected 1 to"):
        moesaic.Runtime(MODEL, context=1 << 20)
    with pytest.raises(moesaic.RequestError, match="context must be a positive integer"):
        moesaic.Runtime(MODEL, context=0)


def test_a_refused_file_leaves_nothing(tmp_path, cache):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(MODEL.read_bytes()[:5000])
    with pytest.raises(moesaic.ModelError, match=r"bad\.gguf"):
        moesaic.Runtime(bad)
    with pytest.raises(moesaic.PlanError, match="expected 1 to"):
        moesaic.Runtime(MODEL, context=1 << 20)
    assert [path.name for path in cache.rglob("*")] == ["plans"]


def test_an_interrupt_leaves_nothing(cache):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moesaic.Runtime(MODEL, progress=interrupt)
    assert [path.name for path in cache.rglob("*")] == ["plans"]


def test_a_killed_process_is_cleaned_up_after(cache):
    code = """
import os, signal, sys, moesaic
moesaic.Runtime(sys.argv[1], progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""
    with process(MODEL, code=code) as killed:
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert only_entry().record is None and only_entry().bytes > 0
    generated(MODEL)
    names = {path.name.replace(only_entry().key, "KEY") for path in (cache / "plans").iterdir()}
    assert names == {"KEY", "KEY.json", "KEY.lock"}


def test_who_comes_second_waits_and_says_so(cache, plan_of):
    generated(MODEL)
    key = only_entry().key
    shutil.rmtree(cache)
    (cache / "plans").mkdir(parents=True)
    with (cache / "plans" / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = process(MODEL)
        assert "waiting" in second.stderr.readline()
        assert second.poll() is None
        fcntl.flock(lock, fcntl.LOCK_UN)
    out, _ = second.communicate()
    assert json.loads(out) == generated(plan_of("llama-q8_0"))


def test_only_one_of_many_processes_partitions(plan_of):
    running = [process(MODEL) for _ in range(4)]
    said = [p.communicate() for p in running]
    assert [json.loads(out) for out, _ in said] == [generated(plan_of("llama-q8_0"))] * 4
    assert sum("partitioning " + str(MODEL) + " (" in err for _, err in said) == 1


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("name", ["weights.bin", "plan.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_damaged_plan_is_made_again(name, damage, capsys):
    first = generated(MODEL)
    damage(only_entry().folder / name)
    capsys.readouterr()
    assert generated(MODEL) == first
    assert "damaged" in capsys.readouterr().err
    assert generated(MODEL) == first
    assert capsys.readouterr().err == ""


def test_a_plan_without_a_record_is_made_again(cache):
    first = generated(MODEL)
    truncate(cache / "plans" / f"{only_entry().key}.json")
    assert only_entry().record is None
    assert generated(MODEL) == first
    assert only_entry().record is not None


def test_a_plan_of_another_version_is_made_again(monkeypatch, capsys):
    generated(MODEL)
    monkeypatch.setattr("moesaic.plan_cache.lookup.__version__", "9.9")
    generated(MODEL)
    assert f"made by moesaic {moesaic.__version__}" in capsys.readouterr().err
    assert only_entry().record.made_with == "9.9"


def test_a_cache_that_cannot_be_used(cache, monkeypatch):
    cache.write_text("a file")
    with pytest.raises(moesaic.PlanError, match="cannot be used") as caught:
        moesaic.Runtime(MODEL)
    assert "MOESAIC_CACHE" in caught.value.hint and "-o" in caught.value.hint
    cache.unlink()
    few = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: few)
    with pytest.raises(moesaic.PlanError, match="1000 are free") as caught:
        moesaic.Runtime(MODEL)
    assert "MOESAIC_CACHE" in caught.value.hint
    assert plan_cache.entries() == []


def test_a_disk_that_fills_while_packing(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moesaic.partitioner.gguf.tokenizer.TokenizerFiles.write", full)
    with pytest.raises(moesaic.PlanError, match="No space left") as caught:
        moesaic.Runtime(MODEL)
    assert "MOESAIC_CACHE" in caught.value.hint
    assert plan_cache.entries() == []


def test_a_cache_that_can_only_be_read(monkeypatch, no_partitioning):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        monkeypatch.setenv("MOESAIC_CACHE", str(folder / "cache"))
        model = Path(shutil.copy(MODEL, folder / "model.gguf"))
        first = generated(model)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # rights mean nothing to root
            monkeypatch.setattr("moesaic.partitioner.partition", None)
            assert generated(model) == first
            with pytest.raises(moesaic.PlanError, match="cannot be used"):
                moesaic.Runtime(MODELS / "llama-tied-f32.gguf")
        finally:
            os.seteuid(user)
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


def test_what_is_open_is_not_removed():
    with moesaic.Runtime(MODEL) as rt:
        assert only_entry().in_use
        with pytest.raises(moesaic.PlanError, match="in use"):
            plan_cache.remove(only_entry())
        assert rt.generate("ab", **GREEDY).tokens
    assert not only_entry().in_use
    plan_cache.remove(only_entry())
    assert plan_cache.entries() == []
    generated(MODEL)


def test_a_runtime_that_is_dropped_lets_go():
    rt = moesaic.Runtime(MODEL)
    assert only_entry().in_use
    del rt
    assert not only_entry().in_use


def test_nothing_outside_is_removed(cache, tmp_path):
    generated(MODEL)
    outside = tmp_path / "outside"
    shutil.move(only_entry().folder, outside)
    only_entry().folder.symlink_to(outside)
    plan_cache.remove(only_entry())
    assert (outside / "weights.bin").is_file()
    (cache / "plans" / "notes").mkdir()
    (cache / "plans" / "notes.json").write_text("{}")
    assert plan_cache.entries() == []


def test_the_runtime_half_sees_no_model_file():
    with pytest.raises(moesaic.PlanError, match="is a model file") as caught:
        PlanRuntime(MODEL)
    assert "partition" in caught.value.hint


def test_a_split_model_is_made_of_all_its_files(tmp_path, capsys):
    whole = generated(MODEL)
    first = split(MODEL, tmp_path, [4, 5])
    others = sorted(set(tmp_path.glob("*.gguf")) - {first})
    assert generated(first) == whole
    (entry,) = (e for e in plan_cache.entries() if e.source == first)
    assert [s.path for s in entry.record.sources] == [str(first), *map(str, others)]
    others[-1].touch()  # not certain to be the same any more, so looked at
    capsys.readouterr()
    assert generated(first) == whole
    assert capsys.readouterr().err == ""


def test_a_file_that_is_missing():
    with pytest.raises(moesaic.ModelError, match="no such file"):
        moesaic.Runtime("nowhere.gguf")
    with pytest.raises(moesaic.PlanError, match="nowhere"):
        moesaic.Runtime("nowhere")
