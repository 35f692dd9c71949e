"""Usage profiles: written whole, read strictly, added to only if they are of one model."""

import json
import os
import subprocess
import sys

import msgspec
import pytest

from moesaic import replace, usage_format
from moesaic.errors import PlanError
from moesaic.usage_format import (
    FORMAT,
    VERSION,
    Usage,
    add_usage,
    read_usage,
    write_usage,
)

USAGE = Usage(FORMAT, VERSION, "mixtral", 10, {"/layers.0/moe/experts": [4, 0, 6, 10]}, "u1")


def changed(**fields):
    return msgspec.structs.replace(USAGE, **fields)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "usage.json"
    write_usage(path, USAGE)
    assert read_usage(path) == USAGE
    assert os.listdir(tmp_path) == ["usage.json"]


def test_profiles_add_up(tmp_path):
    path = tmp_path / "usage.json"
    assert add_usage(path, USAGE) == USAGE
    more = changed(tokens=1, experts={"/layers.0/moe/experts": [1, 0, 0, 1]})
    total = add_usage(path, more)
    assert total == read_usage(path)
    assert total == changed(tokens=11, experts={"/layers.0/moe/experts": [5, 0, 6, 11]})


@pytest.mark.parametrize("uuids", [("", "u1"), ("u1", ""), ("u1", "u1")])
def test_a_profile_without_a_uuid_fits_any(tmp_path, uuids):
    path = tmp_path / "usage.json"
    write_usage(path, changed(uuid=uuids[0]))
    assert add_usage(path, changed(uuid=uuids[1])).uuid == "u1"


@pytest.mark.parametrize(
    "other",
    [
        {"architecture": "llama"},
        {"uuid": "u2"},
        {"experts": {"/layers.1/moe/experts": [4, 0, 6, 10]}},
        {"experts": {"/layers.0/moe/experts": [4, 0, 6]}},
        {"experts": {}},
    ],
)
def test_a_profile_of_another_model_is_refused(tmp_path, other):
    path = tmp_path / "usage.json"
    write_usage(path, changed(**other))
    before = path.read_bytes()
    with pytest.raises(PlanError, match=r"usage\.json is the usage of another model") as caught:
        add_usage(path, USAGE)
    assert caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_write_leaves_the_old_profile(tmp_path, monkeypatch, existing):
    path = tmp_path / "usage.json"
    if existing:
        write_usage(path, USAGE)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replace.os, "fsync", full)
    with pytest.raises(PlanError, match="No space left"):
        add_usage(path, USAGE)
    assert os.listdir(tmp_path) == ["usage.json"] * existing
    if existing:
        assert read_usage(path) == USAGE


ADD_TEN = """
import sys
from pathlib import Path
import msgspec
from moesaic.usage_format import Usage, add_usage
for _ in range(10):
    add_usage(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Usage))
"""


def test_processes_that_add_take_turns(tmp_path):
    path = tmp_path / "usage.json"
    command = [sys.executable, "-c", ADD_TEN, str(path), msgspec.json.encode(USAGE).decode()]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert read_usage(path).tokens == 30 * USAGE.tokens


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def unsupported(fd, operation):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(usage_format.fcntl, "flock", unsupported)
    for times in (1, 2):
        assert add_usage(tmp_path / "usage.json", USAGE).tokens == times * USAGE.tokens


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not a usage profile"),
        (b"\xff\xfe", "not a usage profile"),
        (b"[]", "not a usage profile"),
        (b"[" * 100_000, "not a usage profile"),
        (b"{}", "missing required field"),
        ({"extra": 1}, "unknown field"),
        ({"tokens": "10"}, r"\$\.tokens"),
        ({"tokens": 1.5}, r"\$\.tokens"),
        ({"experts": {"/layers.0/moe/experts": [1.5]}}, r"\$\.experts"),
        ({"experts": [[1]]}, r"\$\.experts"),
        ({"version": 99}, "version 99"),
        ({"format": "moesaic-plan"}, "moesaic-plan"),
        ({"tokens": 0}, "negative or missing"),
        ({"experts": {"/layers.0/moe/experts": [1, -1]}}, "negative or missing"),
        ({"experts": {"/layers.0/moe/experts": []}}, "negative or missing"),
    ],
)
def test_a_malformed_profile_is_named(tmp_path, text, said):
    path = tmp_path / "usage.json"
    if isinstance(text, dict):
        text = json.dumps(msgspec.to_builtins(USAGE) | text).encode()
    path.write_bytes(text)
    for read in (read_usage, lambda path: add_usage(path, USAGE)):
        with pytest.raises(PlanError, match=rf"usage\.json: .*{said}") as caught:
            read(path)
        assert caught.value.hint
    assert path.read_bytes() == text


@pytest.mark.parametrize("place", ["no/such/folder/usage.json", "", "file/usage.json"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PlanError) as caught:
        add_usage(tmp_path / place, USAGE)
    assert str(tmp_path) in str(caught.value) and caught.value.hint


def test_nothing_is_not_a_profile(tmp_path):
    with pytest.raises(PlanError, match="no token was counted"):
        write_usage(tmp_path / "usage.json", changed(tokens=0))
    assert os.listdir(tmp_path) == []
