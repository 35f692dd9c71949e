"""``moesaic run MODEL.gguf`` and ``moesaic models``."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import MODELS

import moesaic
from moesaic import plan_cache

MODEL = MODELS / "gpt-oss-mxfp4.gguf"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOESAIC_CACHE", str(folder))
    return folder


def cli(*args, stdin=""):
    command = [sys.executable, "-m", "moesaic", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)


def fill(*names):
    for name in names:
        moesaic.Runtime(MODELS / f"{name}.gguf").close()


def keys():
    return {entry.record.name for entry in plan_cache.entries()}


def test_run_takes_a_model_file(plan_of):
    arguments = ("ab", "-n", 4, "--temperature", 0)
    first = cli("run", MODEL, *arguments)
    assert first.returncode == 0, first.stderr
    assert "partitioning" in first.stderr
    again = cli("run", MODEL, *arguments)
    assert "partitioning" not in again.stderr
    assert first.stdout == again.stdout == cli("run", plan_of("gpt-oss-mxfp4"), *arguments).stdout


def test_a_list_for_people_and_for_programs(tmp_path):
    copy = shutil.copy(MODEL, tmp_path / "copy.gguf")
    moesaic.Runtime(copy).close()
    fill("llama-q8_0")
    os.unlink(copy)
    shown = cli("models")
    assert shown.returncode == 0, shown.stderr
    assert "gpt-oss-mxfp4" in shown.stdout and "(gone)" in shown.stdout
    listed = json.loads(cli("models", "--json").stdout)
    assert listed == json.loads(cli("models", "list", "--json").stdout)
    assert [(e["name"], e["architecture"], e["source_exists"]) for e in listed] == [
        ("llama-q8_0", "llama", True),
        ("gpt-oss-mxfp4", "gpt-oss", False),
    ]
    assert listed[1]["source"] == str(copy)
    assert all(entry["bytes"] > 10000 and entry["complete"] for entry in listed)


def test_an_empty_cache():
    assert json.loads(cli("models", "--json").stdout) == []
    assert "no plans" in cli("models").stderr
    assert cli("models", "prune", "--all", "--yes").returncode == 0


def test_remove_by_name_key_or_file():
    fill("llama-q8_0", "llama-f32", "llama-bf16", "llama-tied-f32")
    key = next(e.key for e in plan_cache.entries() if e.record.name == "llama-f32")
    names = ("llama-q8_0", key[:8], MODELS / "llama-bf16.gguf")
    removed = cli("models", "remove", *names, "--yes")
    assert removed.returncode == 0, removed.stderr
    assert keys() == {"llama-tied-f32"}


def test_prune_takes_what_is_old_and_free():
    fill("llama-q8_0", "llama-f32", "llama-bf16")
    plans = plan_cache.plans_folder()
    month_old = time.time() - 31 * 86400
    for entry in plan_cache.entries():
        if entry.record.name != "llama-f32":
            os.utime(plans / f"{entry.key}.json", (month_old, month_old))
    with moesaic.Runtime(MODELS / "llama-bf16.gguf"):
        entry = next(e for e in plan_cache.entries() if e.record.name == "llama-bf16")
        os.utime(plans / f"{entry.key}.json", (month_old, month_old))
        pruned = cli("models", "prune", "--yes")
        assert pruned.returncode == 0, pruned.stderr
        assert "llama-bf16 is in use" in pruned.stderr
    assert keys() == {"llama-f32", "llama-bf16"}
    assert cli("models", "prune", "--older-than", "60d", "--yes").returncode == 0
    assert keys() == {"llama-f32", "llama-bf16"}
    assert cli("models", "prune", "--all", "--yes").returncode == 0
    assert keys() == set()
    assert list(plans.iterdir()) == []


def test_nothing_is_removed_without_consent():
    fill("llama-q8_0")
    for command in (("prune", "--all"), ("remove", "llama-q8_0")):
        asked = cli("models", *command, stdin="y\n")
        assert asked.returncode == 1
        assert "--yes" in asked.stderr
    assert keys() == {"llama-q8_0"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("remove", "nobody"), "no such plan"),
        (("prune", "--older-than", "soon"), "not a duration"),
    ],
)
def test_wrong_calls(arguments, said):
    ran = cli("models", *arguments)
    assert ran.returncode == 1
    assert said in ran.stderr and "hint:" in ran.stderr
