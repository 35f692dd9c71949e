"""``moesaic doctor``: measured once, then planning uses it."""

import json
import os
import subprocess
import sys

import pytest
from conftest import MODELS

import moesaic
import moesaic.cuda
from moesaic.doctor import diagnose
from moesaic.machine_facts import facts_path
from moesaic.runtime import _native


def doctor(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "moesaic", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_plans_use_what_the_doctor_measured(cache):
    model = MODELS / "llama-f32.gguf"
    (before,) = moesaic.partition(model, dry_run=True).file.devices
    assert before.facts.source == "assumed"
    ran = doctor("--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    (after,) = moesaic.partition(model, dry_run=True).file.devices
    assert after.facts.source == "measured"
    assert after.facts.read_bandwidth == found["facts"]["read_bandwidth"] > 1e8
    assert after.facts.int8_rate > 1e8 and after.facts.float_rate > 1e8
    assert 0 < after.facts.latency < 1
    assert found["facts_file"] == str(facts_path())
    assert found["machine"]["cores"] == _native.usable_cores()
    assert found["isa"] in found["isas"]
    assert found["disk_write"] > 0 and found["memory_available"] > 0


@pytest.mark.parametrize("latency", [2e-6, 6e-4])
def test_a_machine_in_use_is_told_to_measure_again(cache, monkeypatch, latency):
    speed = {"read_bandwidth": 4e10, "int8_rate": 1e12, "float_rate": 2e11, "latency": latency}
    monkeypatch.setattr(_native, "measure_speed", lambda *_: speed)
    advice = [one.what for one in diagnose().advice]
    assert ("waking threads took 600 µs" in advice) == (latency > 1e-4)


def test_the_report_says_what_is_missing(cache):
    ran = doctor(MOESAIC_FORCE_ISA="generic")
    assert ran.returncode == 0, ran.stderr
    assert "generic, of " in ran.stdout and "GB/s" in ran.stdout
    assert str(cache) in ran.stdout
    if len(_native.available_isas()) > 1:
        assert "unset MOESAIC_FORCE_ISA" in ran.stdout
    if moesaic.cuda.why_not_cuda():
        assert moesaic.cuda.why_not_cuda() in ran.stdout


def test_an_instruction_set_that_is_not_there_is_an_error(cache):
    ran = doctor(MOESAIC_FORCE_ISA="nonsense")
    assert ran.returncode == 1
    assert "MOESAIC_FORCE_ISA" in ran.stderr and "hint:" in ran.stderr
    assert not facts_path().exists()


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").touch()
    ran = doctor(MOESAIC_CACHE=str(tmp_path / "file" / "cache"))
    assert ran.returncode == 0, ran.stderr
    assert "cannot be written" in ran.stdout


@pytest.mark.parametrize("arguments", [(0, 0.1), (1 << 40, 0.1), (1 << 20, -1.0), (1 << 20, 1e9)])
def test_measuring_is_bounded(arguments):
    with pytest.raises(moesaic.RequestError, match="measure"):
        _native.measure_speed(*arguments)
