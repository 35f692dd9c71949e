"""Partitioning gone wrong from outside: killed, interrupted, twice at once, no room, no rights."""

import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from kit import tiny_gguf as tiny

import moesaic
from moesaic.errors import PlanError
from moesaic.partitioner.plan.partial import exchange, partial_folder

MODEL = Path(__file__).parents[1] / "golden" / "models" / "llama-f32.gguf"
VOCAB, WIDTH, LAYERS = 64, 512, 12


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """A llama of zeros, all holes on disk: long enough in the making to be caught at it."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    w = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (w.add_block_count, LAYERS),
        (w.add_context_length, 64),
        (w.add_embedding_length, WIDTH),
        (w.add_feed_forward_length, 8 * WIDTH),
        (w.add_head_count, 4),
        (w.add_layer_norm_rms_eps, 1e-5),
        (w.add_tokenizer_model, "llama"),
        (w.add_token_list, [f"t{i}".encode() for i in range(VOCAB)]),
        (w.add_token_scores, [0.0] * VOCAB),
        (w.add_token_types, [1] * VOCAB),
    ):
        add(value)
    shapes = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{i}.{name}.weight"] = (WIDTH,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{i}.{name}.weight"] = (WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            shapes[f"blk.{i}.{name}.weight"] = (8 * WIDTH, WIDTH)
        shapes[f"blk.{i}.ffn_down.weight"] = (WIDTH, 8 * WIDTH)
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        w.add_tensor_info(name, shape, np.dtype(np.float32), size)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    os.truncate(path, path.stat().st_size + 4 * sum(int(np.prod(s)) for s in shapes.values()) + 64)
    return path


def start(model, target, *options):
    """``partition`` in a process of its own."""
    command = [sys.executable, "-m", "moesaic", "partition", str(model), "-o", str(target)]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_until_packing(folder, process):
    """Returns once the process has written weights to its temporary folder."""
    while process.poll() is None:
        files = list(folder.glob(".*.partial/weights.bin"))
        if files and files[0].stat().st_size > 1 << 20:
            return
        time.sleep(0.002)
    raise AssertionError(f"it ended too early: {process.stderr.read()}")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_sigint_in_mid_write_leaves_nothing(large_model, tmp_path):
    process = start(large_model, tmp_path / "plan")
    wait_until_packing(tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert names(tmp_path) == []


def test_sigkill_in_mid_write_leaves_no_plan_and_the_next_run_cleans_up(large_model, tmp_path):
    process = start(large_model, tmp_path / "plan")
    wait_until_packing(tmp_path, process)
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "plan").exists()
    assert len(names(tmp_path)) == 1  # the temporary folder: nobody was left to remove it
    moesaic.partition(MODEL, tmp_path / "plan", context=64)
    assert names(tmp_path) == ["plan"]


def test_sigkill_while_replacing_leaves_the_old_plan(large_model, tmp_path):
    before = moesaic.partition(MODEL, tmp_path / "plan", context=64).file
    process = start(large_model, tmp_path / "plan", "--force")
    wait_until_packing(tmp_path, process)
    process.kill()
    process.communicate(timeout=60)
    with moesaic.Runtime(tmp_path / "plan") as runtime:
        assert runtime.plan == before
        runtime.logits([1, 2, 3])


def test_two_partitions_to_one_target(large_model, tmp_path):
    process = start(large_model, tmp_path / "plan")
    wait_until_packing(tmp_path, process)
    with pytest.raises(PlanError, match="plan is being written by another process") as caught:
        moesaic.partition(MODEL, tmp_path / "plan")
    assert caught.value.hint
    moesaic.partition(MODEL, tmp_path / "plan.2", context=64)  # another target is free
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert names(tmp_path) == ["plan", "plan.2"]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path):
    def appear(done, total):
        (tmp_path / "plan").mkdir(exist_ok=True)
        (tmp_path / "plan" / "letter.txt").write_text("dear")

    with pytest.raises(PlanError, match="plan: cannot be written: Directory not empty"):
        moesaic.partition(MODEL, tmp_path / "plan", context=64, progress=appear)
    assert names(tmp_path) == ["plan"]
    assert names(tmp_path / "plan") == ["letter.txt"]


def test_a_model_that_shrinks_while_it_is_packed(tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(MODEL.read_bytes())

    def shrink(done, total):
        os.truncate(model, 100_000)

    with pytest.raises(moesaic.errors.MoesaicError, match=r"model\.gguf"):
        moesaic.partition(model, tmp_path / "plan", context=64, progress=shrink)
    assert names(tmp_path) == ["model.gguf"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_target(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PlanError, match="Permission denied") as caught:
            moesaic.partition(MODEL, tmp_path / "plan")
        assert "permissions" in caught.value.hint
    finally:
        tmp_path.chmod(0o755)


def small_disk(tmp_path, size):
    """Mounts a small file system, or skips."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode().strip()}")
    return disk


def test_a_real_disk_that_fills_up(tmp_path, large_model):
    disk = small_disk(tmp_path, "64M")
    try:
        with pytest.raises(PlanError, match=r"plan: needs \d+ bytes, but only \d+ are free"):
            moesaic.partition(large_model, disk / "plan")

        def fill(done, total):
            if not (disk / "other").exists():
                with (disk / "other").open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - 8192)

        with pytest.raises(
            PlanError, match=r"disk/plan/weights\.bin: cannot be written: No space left"
        ) as caught:
            moesaic.partition(MODEL, disk / "plan", context=64, progress=fill)
        assert "free some space" in caught.value.hint
        assert [name for name in names(disk) if name != "other"] == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_read_only_disk(tmp_path):
    disk = small_disk(tmp_path, "64M")
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(PlanError, match="Read-only file system") as caught:
            moesaic.partition(MODEL, disk / "plan")
        assert caught.value.hint
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_folders_of_a_target_are_told_apart(tmp_path):
    with partial_folder(tmp_path / "plan"), partial_folder(tmp_path / "plan2"):
        with pytest.raises(PlanError, match="another process"), partial_folder(tmp_path / "plan"):
            raise AssertionError
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []


def test_paths_are_swapped_in_one_step(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path / "a") == ["b"]
    with pytest.raises(OSError, match="missing"):
        exchange(tmp_path / "a", tmp_path / "missing")


def test_a_header_of_many_keys_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "keys.gguf"
    keys = {f"key.{i}": i for i in range(20_000)} | {"general.architecture": "llama"}
    path.write_bytes(tiny.build(keys, []))
    tracemalloc.start()
    with pytest.raises(moesaic.errors.ModelError, match=r"keys\.gguf"):
        moesaic.partition(path, tmp_path / "plan")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
