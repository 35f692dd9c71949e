"""Replaces files so that after a crash each is whole: the old one or the new."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

__all__ = ["replace_files", "sync"]


def replace_files(files: Mapping[Path, bytes]) -> None:
    """Replaces files of one folder, or makes those that are missing.

    All are written and synced beside their places first, so that a full disk changes nothing; then
    each is renamed, in order. Only a crash between two of the renames can leave some new, some old.

    Args:
        files: What each is to hold. Those that exist keep their rights.

    Raises:
        OSError: Some cannot be written.
    """
    with ExitStack() as stack:
        written = [(_write_beside(stack, path, data), path) for path, data in files.items()]
        for temporary, path in written:
            temporary.replace(path)
        for folder in {path.parent for path in files}:
            sync(folder)


def sync(path: Path) -> None:
    """Returns when a file or the entries of a folder are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_beside(stack: ExitStack, path: Path, data: bytes) -> Path:
    """Writes a temporary file, which goes when the stack ends if it has not been renamed."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    stack.callback(temporary.unlink, missing_ok=True)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, temporary)
    else:
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
    return temporary
