"""Temporary folders beside a target: one writer at a time, and what a killed one left is removed.

A writer holds a lock on its folder as long as it lives; the kernel releases it however the process
ends. So a folder that nobody has locked was abandoned.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moesaic.errors import PlanError

__all__ = ["exchange", "partial_folder"]

_SUFFIX = ".partial"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder beside `target`, whose parent must exist; removes it at the end.

    Raises:
        PlanError: Another process is writing `target`.
        OSError: The folder cannot be made.
    """
    with _locked(target.parent):  # so that of two that start at once, one sees the other
        _remove_abandoned(target)
        name = tempfile.mkdtemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent)
        lock = _lock(Path(name))
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(lock)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step; returns whether this filesystem can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def _prefix(target: Path) -> str:
    return f".{target.name}."


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.glob("*" + _SUFFIX):
        if not path.name.startswith(_prefix(target)) or not path.is_dir():
            continue
        try:
            lock = _lock(path)
        except BlockingIOError:
            raise PlanError(
                f"{target} is being written by another process",
                hint="wait for it, or choose another output",
            ) from None
        except FileNotFoundError:  # its writer has just ended
            continue
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int:
    """Returns a descriptor that holds the lock of a folder.

    Raises:
        BlockingIOError: Somebody else holds it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a filesystem without locks: two that start at once both go on
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
