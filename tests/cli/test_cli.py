"""The command line as a user types it, in a process of its own."""

import json
import subprocess
import sys

import pytest
from conftest import MODELS

import moesaic


def cli(*args, stdin=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "moesaic", *map(str, args)],
        capture_output=True,
        text=True,
        input=stdin,
        cwd=cwd,
        check=False,
    )


def test_partition_run_inspect(tmp_path):
    plan = tmp_path / "plan"
    made = cli("partition", MODELS / "gpt-oss-mxfp4.gguf", "-o", plan)
    assert made.returncode == 0, made.stderr
    assert "Memory" in made.stdout and "/layers.*/moe/experts" in made.stdout
    assert "moesaic run" in made.stderr

    ran = cli("run", plan, "ab ab", "--max-tokens", 5, "--temperature", 0, "--ignore-eos")
    assert ran.returncode == 0, ran.stderr
    with moesaic.Runtime(plan) as rt:
        expected = rt.generate("ab ab", max_tokens=5, temperature=0, ignore_eos=True)
    assert ran.stdout == expected.text + "\n"
    assert "tokens/s" in ran.stderr

    shown = cli("inspect", plan)
    assert shown.returncode == 0, shown.stderr
    assert "gpt-oss" in shown.stdout and "cpu" in shown.stdout


def test_json_is_one_document_on_stdout(tmp_path):
    plan = tmp_path / "plan"
    made = json.loads(cli("partition", MODELS / "llama-f32.gguf", "-o", plan, "--json").stdout)
    shown = json.loads(cli("inspect", plan, "--json").stdout)
    assert made == shown
    assert shown["model"]["architecture"] == "llama"
    assert shown["memory"][0]["device"] == "cpu"
    ran = cli("run", plan, "ab", "-n", 3, "--temperature", 0, "--ignore-eos", "--json")
    reply = json.loads(ran.stdout)
    assert len(reply["tokens"]) == 3
    assert reply["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 3


def test_the_prompt_may_come_from_stdin(plan_of):
    arguments = ("run", plan_of("llama-f32"), "-n", 4, "--temperature", 0)
    assert cli(*arguments, stdin="ab").stdout == cli(*arguments, "ab").stdout != ""


def test_partition_for_a_gpu_that_is_not_here(tmp_path):
    plan = tmp_path / "plan"
    made = cli(
        "partition", MODELS / "gpt-oss-mxfp4.gguf", "-o", plan, "--devices", "cpu,cuda:0=1GiB"
    )
    assert made.returncode == 0, made.stderr
    assert "cuda:0" in made.stdout
    ran = cli("run", plan, "ab")
    assert ran.returncode == 1
    assert "no CUDA device" in ran.stderr and "hint:" in ran.stderr
    assert cli("partition", plan, "--devices", "cpu").returncode == 0
    assert cli("run", plan, "ab", "-n", 2).returncode == 0


def test_dry_run_writes_nothing(tmp_path):
    made = cli("partition", MODELS / "llama-f32.gguf", "--dry-run", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "Memory" in made.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_writes_text():
    ran = cli("demo", "--max-tokens", 40, "--seed", 1)
    assert ran.returncode == 0, ran.stderr
    words = ran.stdout.split()
    assert len(words) > 10
    assert sum(word.isascii() for word in words) == len(words)


def test_demo_keeps_the_plan_where_it_is_told(tmp_path):
    plan = tmp_path / "demo"
    assert cli("demo", "-o", plan, "-n", 2).returncode == 0
    assert (plan / "plan.json").is_file()
    again = cli("demo", "-o", plan, "-n", 2)
    assert again.returncode == 1 and "--force" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "no-such-plan", "x"), 1, "no-such-plan"),
        (("partition", "no-such-model.gguf", "-o", "p"), 1, "no-such-model.gguf"),
        (("partition", MODELS / "llama-f32.gguf"), 1, "no output directory"),
        (("run", MODELS / "llama-f32.gguf", "x"), 1, "partition it first"),
        (("run",), 2, "Missing argument"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_wrong_calls_say_what_to_do(arguments, code, said, tmp_path):
    ran = cli(*arguments, cwd=tmp_path)
    assert ran.returncode == code
    assert said in ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    if code == 1:
        assert "hint:" in ran.stderr


def test_a_bad_sampling_argument(plan_of):
    ran = cli("run", plan_of("llama-f32"), "ab", "--temperature", -1)
    assert ran.returncode == 1
    assert "temperature must be at least 0" in ran.stderr


def test_version():
    assert cli("--version").stdout.strip() == f"moesaic {moesaic.__version__}"


def test_the_partition_script_is_the_same_command(tmp_path):
    code = "import sys; from moesaic.cli.partition import main; sys.argv[0] = 'partition'; main()"
    plan = tmp_path / "plan"
    arguments = [sys.executable, "-c", code, str(MODELS / "llama-f32.gguf"), "-o", str(plan)]
    subprocess.run(arguments, check=True, capture_output=True)
    assert (plan / "plan.json").is_file()
