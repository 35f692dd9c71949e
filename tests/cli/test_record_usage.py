"""`moesaic run --record-usage`, in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

import moesaic
from moesaic.cli._record import recording
from moesaic.usage_format import read_usage

CASE = "mixtral-f32"
OPTIONS = ("-n", "5", "--temperature", "0", "--ignore-eos")


def run(plan, *args, **options):
    command = [sys.executable, "-m", "moesaic", "run", str(plan), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_the_profile_is_what_the_runtime_counts(plan_of, tmp_path):
    path = tmp_path / "usage.json"
    made = run(plan_of(CASE), "ab ab", *OPTIONS, "--record-usage", path)
    assert made.returncode == 0, made.stderr
    with moesaic.Runtime(plan_of(CASE), record_usage=True) as rt:
        reply = rt.generate("ab ab", max_tokens=5, temperature=0, ignore_eos=True)
        expected = rt.usage()
    assert made.stdout == reply.text + "\n"
    assert read_usage(path) == expected
    assert f"usage of {expected.tokens} tokens added to" in " ".join(made.stderr.split())


def test_another_run_adds_to_it(plan_of, tmp_path):
    path = tmp_path / "usage.json"
    for _ in range(2):
        assert run(plan_of(CASE), "ab", *OPTIONS, "--record-usage", path).returncode == 0
    twice = read_usage(path)
    path.unlink()
    assert run(plan_of(CASE), "ab", *OPTIONS, "--json", "--record-usage", path).returncode == 0
    once = read_usage(path)
    assert twice.tokens == 2 * once.tokens
    for node, row in once.experts.items():
        np.testing.assert_array_equal(twice.experts[node], np.multiply(row, 2))


@pytest.mark.parametrize(
    ("case", "content", "said"),
    [
        ("llama-f32", None, "no experts"),
        ("gpt-oss-f32", None, "usage of another model"),
        (CASE, "{}", "not a usage profile"),
    ],
)
def test_what_cannot_be_added_to_is_an_error_before_the_run(case, content, said, plan_of, tmp_path):
    path = tmp_path / "usage.json"
    assert run(plan_of(CASE), "ab", *OPTIONS, "--record-usage", path).returncode == 0
    if content is not None:
        path.write_text(content)
    before = path.read_bytes()
    refused = run(plan_of(case), "ab", *OPTIONS, "--record-usage", path)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert said in refused.stderr and "hint:" in refused.stderr
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_an_error(plan_of, tmp_path):
    refused = run(plan_of(CASE), "ab", *OPTIONS, "--record-usage", tmp_path / "no" / "usage.json")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "No such file or directory" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_what_an_interrupted_run_counted_is_kept(end, plan_of, tmp_path):
    path = tmp_path / "usage.json"
    with moesaic.Runtime(plan_of(CASE), record_usage=True) as rt:
        with pytest.raises(end), recording(rt, path):
            next(rt.stream([1, 2, 3], max_tokens=9))
            raise end
        assert read_usage(path) == rt.usage()


def test_a_run_that_counted_nothing_leaves_no_profile(plan_of, tmp_path):
    path = tmp_path / "usage.json"
    assert run(plan_of(CASE), "ab", "-n", "0", "--record-usage", path).returncode == 1
    assert not path.exists()
