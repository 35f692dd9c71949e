"""Locks between processes: ``flock`` on files, which ends with the process that holds it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["locked", "share", "try_lock"]


@contextmanager
def locked(path: Path, *, shared: bool, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds a lock on a file, which is made if need be, within the block.

    Args:
        path: The file. Whoever holds it exclusively may delete it.
        shared: Let others hold it too, as long as they share it.
        on_wait: Called once if somebody else holds it, before waiting.

    Raises:
        OSError: The file cannot be made or opened.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        fd = _open(path)
        try:
            if not _take(fd, kind):
                on_wait()
                fcntl.flock(fd, kind)
            if _is_still(path, fd):
                yield
                return
        finally:
            os.close(fd)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Holds an exclusive lock on an existing file within the block, or yields False at once."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True  # nobody can hold it
        return
    try:
        yield _take(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def share(path: Path) -> int:
    """Returns a descriptor of a file that holds a shared lock until it is closed.

    Raises:
        OSError: The file cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError):  # a file system without locks: then nobody asks for one either
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        if path.exists():  # in a folder that cannot be written, to be read all the same
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise


def _take(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, fd: int) -> bool:
    """Whether the path still leads to the open file: its last holder may have deleted it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
