"""What is in the cache of plans, and how it is removed.

    plans/<key>/        a plan directory
    plans/<key>.json    what it was made from; written last: without it the plan does not count
    plans/<key>.lock    locked while the plan is looked up (shared), made, placed anew or removed

An open runtime holds a shared lock on its ``weights.bin``, so that the plan is not removed.
"""

import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from moesaic.cache import cache_folder
from moesaic.errors import PlanError
from moesaic.plan_cache.locks import try_lock
from moesaic.plan_format import Limits
from moesaic.small_file import read_small

__all__ = [
    "Entry",
    "Record",
    "SourceFile",
    "clear_leftovers",
    "entries",
    "find",
    "lock_path",
    "plans_folder",
    "read_record",
    "record_path",
    "records",
    "remove",
    "source_file",
]

_KEY = re.compile(r"[0-9a-f]{32}-\d+")
_LEFTOVER = re.compile(r"\.([0-9a-f]{32}-\d+)\..+")
_MIN_PREFIX = 4
_MAX_RECORD_BYTES = 16 << 20
_SETTLED_NS = 2 * 10**9  # file systems keep times in steps; a file changed just now may be again


class SourceFile(msgspec.Struct, frozen=True):
    """A file that a plan was made from, as it was then.

    Attributes:
        path: Its absolute path.
        stat: Device, inode, bytes, and nanoseconds of the last changes of content and of anything.
    """

    path: str
    stat: tuple[int, int, int, int, int]


class Record(msgspec.Struct, frozen=True):
    """What is known of a cached plan besides the plan itself.

    Attributes:
        name: The model's name.
        architecture: Its `general.architecture`.
        sources: The model's files, the one that was opened first.
        checked: When these were found to have the plan's key, in nanoseconds since 1970.
        made_with: Version of moesaic that made the plan.
        defaults: The limits of a runtime that asks for none.
        files: Size in bytes of the files that placing the plan anew does not change.
    """

    name: str
    architecture: str
    sources: list[SourceFile]
    checked: int
    made_with: str
    defaults: Limits
    files: dict[str, int]

    def describes(self, file: SourceFile) -> bool:
        """Whether a file is certain to be the one that the plan was made from."""
        now = [file, *map(source_file, (s.path for s in self.sources[1:]))]
        return all(
            new is not None and new.stat == old.stat and self.checked - new.stat[4] > _SETTLED_NS
            for old, new in zip(self.sources, now, strict=True)
        )


@dataclass(frozen=True)
class Entry:
    """A plan in the cache.

    Attributes:
        key: Its name in the cache.
        folder: The plan directory.
        bytes: Its size on disk.
        last_used: When a runtime last opened it, in seconds since 1970.
        record: What it was made from, None if it was not finished or that is damaged.
    """

    key: str
    folder: Path
    bytes: int
    last_used: float
    record: Record | None

    @property
    def source(self) -> Path | None:
        """The model file it was made from."""
        return Path(self.record.sources[0].path) if self.record else None

    @property
    def in_use(self) -> bool:
        """Whether a runtime has it open, or it is just being made."""
        with try_lock(lock_path(self.key)) as free, try_lock(self.folder / "weights.bin") as idle:
            return not (free and idle)


def plans_folder() -> Path:
    """The folder of cached plans, which may not exist yet."""
    return cache_folder() / "plans"


def record_path(key: str) -> Path:
    """The file that describes a plan."""
    return plans_folder() / f"{key}.json"


def lock_path(key: str) -> Path:
    """The file that is locked while a plan is made or removed."""
    return plans_folder() / f"{key}.lock"


def read_record(key: str) -> Record | None:
    """Returns the description of a plan, None if there is none that can be read."""
    try:
        record = msgspec.json.decode(read_small(record_path(key), _MAX_RECORD_BYTES), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.sources else None


def source_file(path: str | os.PathLike[str]) -> SourceFile | None:
    """Returns a file as it is now, None if it cannot be looked at."""
    try:
        s = os.stat(path)
    except (OSError, ValueError):  # a NUL in a damaged record
        return None
    stat = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return SourceFile(os.path.abspath(path), stat)


def entries() -> list[Entry]:
    """Returns what is in the cache, last used first."""
    folder = plans_folder()
    names = os.listdir(folder) if folder.is_dir() else []
    found = {name.removesuffix(".json") for name in names}
    found |= {match[1] for match in map(_LEFTOVER.fullmatch, names) if match}
    listed = [_entry(key) for key in found if _KEY.fullmatch(key)]
    return sorted(listed, key=lambda entry: entry.last_used, reverse=True)


def records() -> list[tuple[str, Record]]:
    """Returns the keys and descriptions of the plans in the cache."""
    folder = plans_folder()
    names = os.listdir(folder) if folder.is_dir() else []
    keys = [n.removesuffix(".json") for n in names if n.endswith(".json")]
    described = [(key, read_record(key)) for key in keys if _KEY.fullmatch(key)]
    return [(key, record) for key, record in described if record is not None]


def _entry(key: str) -> Entry:
    folder = plans_folder() / key
    paths = [folder, *_leftovers(key)]
    used = [os.lstat(p).st_mtime for p in (record_path(key), *paths) if os.path.lexists(p)]
    size = sum(_bytes_in(path) for path in paths)
    return Entry(key, folder, size, used[0] if used else time.time(), read_record(key))


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def find(names: Sequence[str]) -> list[Entry]:
    """Returns the entries that some names stand for.

    Args:
        names: Keys, their beginnings, names of models, or their files' names or paths.

    Raises:
        PlanError: A name stands for no entry.
    """
    all_entries = entries()
    found: dict[str, Entry] = {}
    for name in names:
        matches = [entry for entry in all_entries if _is_called(entry, name)]
        if not matches:
            raise PlanError(
                f"{name}: no such plan in {plans_folder()}",
                hint="`moesaic models` lists names and keys",
            )
        found |= {entry.key: entry for entry in matches}
    return list(found.values())


def _is_called(entry: Entry, name: str) -> bool:
    if len(name) >= _MIN_PREFIX and entry.key.startswith(name):
        return True
    if entry.record is None or entry.source is None:
        return False
    return name in (entry.record.name, entry.source.name, entry.source.stem) or (
        os.path.abspath(name) == str(entry.source)
    )


def remove(entry: Entry) -> None:
    """Removes an entry with all that belongs to it.

    Raises:
        PlanError: A runtime has it open, it is just being made, or it cannot be removed.
    """
    lock = lock_path(entry.key)
    try:
        with try_lock(lock) as free, try_lock(entry.folder / "weights.bin") as idle:
            if not (free and idle):
                raise PlanError(
                    f"{entry.folder} is in use", hint="close the programs that have it open"
                )
            record_path(entry.key).unlink(missing_ok=True)
            if entry.folder.is_symlink():
                entry.folder.unlink()
            elif entry.folder.exists():
                shutil.rmtree(entry.folder)
            clear_leftovers(entry.key)
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(
            f"{error.filename or entry.folder}: cannot be removed: {error.strerror}",
            hint="check the permissions of the cache folder",
        ) from error


def clear_leftovers(key: str) -> None:
    """Removes what a process that was killed left behind; only for who holds the lock."""
    for path in _leftovers(key):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _leftovers(key: str) -> list[Path]:
    return list(plans_folder().glob(f".{key}.*"))
