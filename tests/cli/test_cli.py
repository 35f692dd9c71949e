"""The command line as a user types it, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from conftest import MODELS

import moesaic
import moesaic.cuda

CASE = "gpt-oss-mxfp4"


def cli(*args, stdin=None, cwd=None, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False}
    command = [sys.executable, "-m", "moesaic", *map(str, args)]
    return subprocess.run(command, input=stdin, cwd=cwd, **streams | options)


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


def test_budgets_are_options(tmp_path):
    model = MODELS / "gpt-oss-mxfp4.gguf"
    made = cli("partition", model, "--dry-run", "--devices", "cpu,cuda:0", "--vram", "1GiB")
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    tight = cli("partition", model, "--dry-run", "--ram", "64KiB")
    assert tight.returncode == 1
    assert "raise ram to" in tight.stderr


def test_a_full_stdout_is_an_error_not_a_crash(plan_of):
    for arguments in (("run", plan_of(CASE), "ab", "-n", 2), ("inspect", plan_of(CASE), "--json")):
        with open("/dev/full", "w") as full:
            ran = cli(*arguments, stdout=full)
        assert ran.returncode == 1
        assert "No space left" in ran.stderr and "Traceback" not in ran.stderr


def test_text_that_stdout_cannot_hold_is_replaced(plan_of):
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    ran = cli("run", plan_of(CASE), "ab", "-n", 20, "--ignore-eos", "--seed", 1, env=ascii_only)
    assert ran.returncode == 0, ran.stderr
    assert "?" in ran.stdout


def test_stdin_that_is_not_text(plan_of):
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    ran = cli("run", plan_of(CASE), stdin=b"\xff\xfe", text=False, env=strict)
    assert ran.returncode == 1
    assert b"stdin: not text" in ran.stderr and b"hint:" in ran.stderr


def test_running_does_not_wait_for_the_partitioner():
    code = "import sys, moesaic.cli; sys.exit('moesaic.partitioner' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_a_plan_for_a_gpu_does_not_ask_to_be_run_without_one(tmp_path):
    plan, model = tmp_path / "plan", MODELS / "gpt-oss-mxfp4.gguf"
    made = cli("partition", model, "-o", plan, "--devices", "cpu,cuda:0", "--place", "head=cpu")
    assert made.returncode == 0, made.stderr
    missing = moesaic.cuda.why_not_cuda()
    assert ("try: moesaic run" in made.stderr) == (missing is None)
    assert missing is None or f"it needs cuda:0, and {missing}" in made.stderr
    shown = json.loads(cli("inspect", plan, "--json").stdout)
    assert shown["wishes"]["place"] == ["head=cpu"]
    wrong = cli("partition", plan, "--place", "nothing=cpu")
    assert wrong.returncode == 1
    assert "matches no node" in wrong.stderr and "hint: there are nodes like" in wrong.stderr
