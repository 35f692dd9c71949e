"""What may happen to the files of a plan while it is open: they are used, moved, lost, changed."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import MODELS

import moesaic
from moesaic.errors import PlanError

CASE = "gpt-oss-mxfp4"
GREEDY = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
LATER = 2_000_000_000  # nanoseconds, for file times of a coarse clock


@pytest.fixture
def plan(plan_of, tmp_path):
    return shutil.copytree(plan_of(CASE), tmp_path / "plan")


@pytest.fixture
def expected(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as rt:
        return rt.generate("ab ab", **GREEDY).tokens


def tokens(rt):
    return rt.generate("ab ab", **GREEDY).tokens


def test_two_runtimes_on_one_plan(plan, expected):
    with moesaic.Runtime(plan) as one, moesaic.Runtime(plan, threads=1, sequences=2) as two:
        found = {}
        workers = [
            threading.Thread(target=lambda i=i, rt=rt: found.update({i: tokens(rt)}))
            for i, rt in enumerate([one, two, one, two])
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert found == dict.fromkeys(range(4), expected)
        one.close()
        assert tokens(two) == expected


def test_two_processes_on_one_plan(plan, expected):
    code = (
        "import sys, moesaic\n"
        "with moesaic.Runtime(sys.argv[1]) as rt:\n"
        "    print(*rt.generate('ab ab', max_tokens=8, temperature=0, ignore_eos=True).tokens)"
    )
    command = [sys.executable, "-c", code, str(plan)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert [int(token) for token in process.communicate()[0].split()] == expected


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("loss", ["moved", "deleted", "replaced"])
def test_a_plan_that_is_gone_stays_open(loss, used_before, plan, plan_of, expected):
    with moesaic.Runtime(plan) as rt:
        if used_before:
            assert tokens(rt) == expected
        if loss == "moved":
            plan.rename(plan.with_name("elsewhere"))
        else:
            shutil.rmtree(plan)
        if loss == "replaced":
            shutil.copytree(plan_of("llama-f32"), plan)
        assert tokens(rt) == expected
        reply = rt.chat([{"role": "user", "content": "ab"}], **GREEDY)
        assert len(reply.tokens) == 8
    if loss != "replaced":
        with pytest.raises(PlanError, match="is not a directory"):
            moesaic.Runtime(plan)


def test_a_plan_placed_anew_while_open(plan, expected):
    with moesaic.Runtime(plan) as rt:
        moesaic.partition(plan, context=64, kv_type="q8_0")
        assert rt.limits["context"] > 64
        assert tokens(rt) == expected
    with moesaic.Runtime(plan) as rt:
        assert rt.limits["context"] == 64


def test_a_plan_written_again_while_open(plan, expected):
    with moesaic.Runtime(plan) as rt:
        moesaic.partition(MODELS / f"{CASE}.gguf", plan, force=True)
        assert tokens(rt) == expected


def write_into(path):
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 64)
    os.utime(path, ns=(LATER, path.stat().st_mtime_ns + LATER))


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: os.truncate(path, 0), "has now 0"),
        (lambda path: os.truncate(path, 8192), "has now 8192"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "has now"),
        (lambda path: os.truncate(path, path.stat().st_size + 1), "has now"),
        (write_into, "was written to"),
    ],
    ids=["emptied", "truncated", "a byte less", "a byte more", "written to"],
)
def test_weights_changed_in_place_are_an_error_not_a_crash(change, said, used_before, plan):
    path = plan / "weights.bin"
    with moesaic.Runtime(plan) as rt:
        stream = rt.stream("ab", **GREEDY)
        if used_before:
            next(stream)
        change(path)
        for ask in (lambda: list(stream), lambda: rt.logits([1, 2]), lambda: tokens(rt)):
            with pytest.raises(PlanError, match=rf"weights\.bin: .*{said}") as caught:
                ask()
            assert "open" in caught.value.hint


def test_weights_truncated_in_the_middle_of_a_step(plan, plan_of):
    """Truncated again and again while steps run: whenever it happens, it is an error."""
    code = (
        "import os, shutil, sys, threading\n"
        "import moesaic\n"
        "plan, spare = sys.argv[1:3]\n"
        "for delay in range(12):\n"
        "    shutil.copyfile(spare + '/weights.bin', plan + '/weights.bin')\n"
        "    with moesaic.Runtime(plan, threads=2) as rt:\n"
        "        cut = lambda: os.truncate(plan + '/weights.bin', 4096)\n"
        "        timer = threading.Timer(0.002 * delay, cut)\n"
        "        timer.start()\n"
        "        try:\n"
        "            while True:\n"
        "                rt.logits(list(range(1, 100)))\n"
        "        except moesaic.PlanError as error:\n"
        "            assert 'weights.bin' in str(error), error\n"
        "        timer.join()\n"
        "print('alive')\n"
    )
    command = [sys.executable, "-c", code, str(plan), str(plan_of(CASE))]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("alive\n", 0), ran.stderr


def test_weights_that_are_cut_before_they_are_opened(plan):
    path = plan / "weights.bin"
    os.truncate(path, path.stat().st_size - 64)
    with pytest.raises(PlanError, match=r"weights\.bin"):
        moesaic.Runtime(plan)


@pytest.mark.parametrize(
    "name",
    ["plan.json", "weights.bin", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"],
)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link away", "dangling link"])
def test_files_that_are_no_files(name, kind, plan, tmp_path):
    path = plan / name
    outside = tmp_path / "outside"
    shutil.copyfile(path, outside)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(outside if kind == "link away" else tmp_path / "nowhere")
    with pytest.raises(PlanError, match=name.replace(".", r"\.")) as caught:
        moesaic.Runtime(plan)
    assert caught.value.hint


def test_the_logits_of_a_moved_plan(plan, plan_of):
    ids = np.load(MODELS / f"{CASE}.npz")["tokens"]
    with moesaic.Runtime(plan_of(CASE)) as rt:
        wanted = rt.logits(ids)
    with moesaic.Runtime(plan) as rt:
        plan.rename(plan.with_name("elsewhere"))
        np.testing.assert_array_equal(rt.logits(ids), wanted)
