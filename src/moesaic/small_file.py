"""Reads a file that is expected to be small, whoever wrote it."""

import errno
import os
import stat
from pathlib import Path

__all__ = ["read_small"]


def read_small(path: Path, most: int) -> bytes:
    """Returns the content of a regular file of at most `most` bytes.

    It neither waits for a pipe nor reads a device that never ends.

    Raises:
        OSError: There is no such file, it is something else, or larger; `strerror` says what.
    """
    with open(path, "rb", opener=_open) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            message = f"{status.st_size} bytes, more than the {most} allowed"
            raise OSError(errno.EFBIG, message, str(path))
        return file.read()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
