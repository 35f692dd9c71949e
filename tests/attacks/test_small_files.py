"""Small files of ours that became something else: pipes, devices, giants, deep nesting."""

import json
import os
import shutil

import pytest
from conftest import MODELS
from kit.command import refused, run

import moesaic
from moesaic import machine_facts, plan_cache
from moesaic.cache import cache_folder
from moesaic.demo import DEMO_MODEL
from moesaic.errors import MoesaicError, PlanError
from moesaic.small_file import read_small
from moesaic.usage_format import read_usage

GIANT = 1 << 40  # a hole, far more than any memory
DEEP = b'{"messages":' + b"[" * 200_000


def spoil(path, kind):
    """Makes `path` what it should not be."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "deep":
        path.write_bytes(DEEP)
    else:
        path.touch()
        os.truncate(path, GIANT)


SAID = {"pipe": "not a regular file", "endless": "not a regular file", "giant": "more than the"}


@pytest.mark.parametrize("kind", SAID)
def test_what_is_no_small_file(kind, tmp_path):
    spoil(tmp_path / "file", kind)
    with pytest.raises(OSError, match=SAID[kind]):
        read_small(tmp_path / "file", 100)


def test_a_small_file_is_read_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    assert read_small(tmp_path / "file", 4) == b"1234"
    with pytest.raises(OSError, match="4 bytes, more than the 3 allowed"):
        read_small(tmp_path / "file", 3)


@pytest.mark.parametrize("kind", [*SAID, "deep"])
def test_usage_profiles(kind, tmp_path):
    path = tmp_path / "usage.json"
    spoil(path, kind)
    with pytest.raises(PlanError, match=rf"usage\.json: .*{SAID.get(kind, 'usage profile')}") as e:
        read_usage(path)
    assert e.value.hint
    with pytest.raises(PlanError, match=r"usage\.json"):
        moesaic.partition(MODELS / "gpt-oss-mxfp4.gguf", dry_run=True, usage=path)


@pytest.mark.parametrize("kind", [*SAID, "deep"])
def test_saved_conversations(kind, demo_plan, tmp_path):
    path = tmp_path / "talk.json"
    spoil(path, kind)
    said = refused("chat", demo_plan, "--load", path)
    assert "talk.json: " in said and SAID.get(kind, "recursion depth") in said


TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "additional_chat_templates/other.jinja",
]


@pytest.mark.parametrize("name", TOKENIZER_FILES)
@pytest.mark.parametrize("kind", ["pipe", "giant"])
def test_tokenizer_files(name, kind, demo_plan, tmp_path):
    plan = shutil.copytree(demo_plan, tmp_path / "plan")
    (plan / name).parent.mkdir(exist_ok=True)
    spoil(plan / name, kind)
    with pytest.raises(PlanError, match=name.replace(".", r"\.")) as caught:
        moesaic.Runtime(plan)
    assert SAID[kind] in str(caught.value) and caught.value.hint


def test_a_graph_that_never_ends(demo_plan, tmp_path):
    plan = shutil.copytree(demo_plan, tmp_path / "plan")
    spoil(plan / "model.onnx", "giant")
    with pytest.raises(PlanError, match=r"model\.onnx: .*more than the") as caught:
        moesaic.partition(plan, kv_type="f32")
    assert caught.value.hint


def test_templates_without_number(demo_plan, tmp_path):
    plan = shutil.copytree(demo_plan, tmp_path / "plan")
    folder = plan / "additional_chat_templates"
    folder.mkdir()
    for i in range(101):
        (folder / f"{i}.jinja").touch()
    with pytest.raises(PlanError, match="101 chat templates, more than the 100 allowed") as caught:
        moesaic.Runtime(plan)
    assert caught.value.hint


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", [*SAID, "deep"])
def test_measured_facts_that_are_none(kind, cache):
    cache.mkdir()
    spoil(machine_facts.facts_path(), kind)
    assert machine_facts.facts_path().parent == cache_folder()
    assert machine_facts.read_facts(1) == {}


MODEL = MODELS / "mixtral-all-q5_0.gguf"


def cached(cache):
    """Opens a model file and returns the record of its plan."""
    with moesaic.Runtime(MODEL) as rt:
        rt.logits([1])
    (path,) = (cache / "plans").glob("*.json")
    return path


@pytest.mark.parametrize("kind", [*SAID, "deep"])
def test_records_of_cached_plans(kind, cache):
    spoil(cached(cache), kind)
    (entry,) = plan_cache.entries()
    assert entry.record is None and entry.source is None


@pytest.mark.parametrize(
    "sources", [[], [{"path": "a\0b", "stat": [0] * 5}], [{"path": "\x1b[2J", "stat": [-1] * 5}]]
)
def test_records_with_odd_sources(sources, cache):
    path = cached(cache)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sources": sources}))
    assert len(plan_cache.entries()) == 1
    done = run("models")
    assert done.exit_code == 0 and "\x1b" not in done.output
    with moesaic.Runtime(MODEL) as rt:
        rt.logits([1])
    assert plan_cache.entries()[0].source == MODEL.absolute()


@pytest.mark.parametrize("name", ["..", "../..", "/", ".", "", "*", "\x1b[2J"])
def test_names_that_lead_out_of_the_cache(name, cache):
    before = cached(cache)
    assert "no such plan" in refused("models", "remove", name, "--yes")
    assert before.exists() and cache.parent.exists()


def test_a_cache_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "file"))
    with pytest.raises(MoesaicError, match="the cache cannot be used") as caught:
        moesaic.Runtime(MODEL)
    assert "MOESAIC_CACHE" in caught.value.hint
    done = run("models")
    assert done.exit_code == 0 and "no plans in" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_a_card_that_is_a_link_is_not_followed(demo_plan, tmp_path):
    plan = shutil.copytree(demo_plan, tmp_path / "plan")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (plan / "README.md").unlink()
    (plan / "README.md").symlink_to(secret)
    moesaic.partition(plan, context=64)
    assert (plan / "README.md").is_symlink() and secret.read_text() == "secret"
    moesaic.partition(DEMO_MODEL, plan, force=True)  # a new directory, to be shown to others
    assert not (plan / "README.md").is_symlink()
    assert "secret" not in (plan / "README.md").read_text()
    assert secret.read_text() == "secret"
