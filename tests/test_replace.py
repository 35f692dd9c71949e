"""Files are replaced whole, and all or none unless the machine stops between two renames."""

import os
import stat

import pytest

from moesaic import replace
from moesaic.replace import replace_files


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_replaced_and_made(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"before")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        replace_files({old: b"after", new: b"first"})
    finally:
        os.umask(mask)
    assert contents(tmp_path) == {"old": b"after", "new": b"first"}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [0o640, 0o640]


@pytest.mark.parametrize("writes", [0, 1])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, writes):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    done = []

    def fsync(fd):
        if len(done) == writes:
            raise OSError(28, "No space left on device")
        done.append(fd)

    monkeypatch.setattr(replace.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        replace_files({one: b"new", two: b"new"})
    assert contents(tmp_path) == {"one": b"1"}


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        replace_files({tmp_path / "no" / "file": b""})
