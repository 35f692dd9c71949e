"""From a model file to its plan in the cache, which is made if it is not there."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from moesaic import __version__
from moesaic.errors import PlanError
from moesaic.plan_cache.entries import (
    Record,
    SourceFile,
    clear_leftovers,
    lock_path,
    plans_folder,
    read_record,
    record_path,
    records,
    source_file,
)
from moesaic.plan_cache.locks import locked, share
from moesaic.plan_file import check_weights, read_plan
from moesaic.plan_format import VERSION, Limits, PlanFile

__all__ = ["CachedPlan", "Wishes", "cached_plan"]

_REPLACED = ("plan.json", "README.md")  # when a plan is placed anew

Announce = Callable[[str], None]
Progress = Callable[[int, int], None]

_ELSEWHERE = (
    "set MOESAIC_CACHE to a folder with room that may be written, or make the plan where you like: "
    "`moesaic partition MODEL -o plan/`"
)


@dataclass(frozen=True)
class CachedPlan:
    """A plan in the cache that is not removed until `lease`, a descriptor, is closed.

    Attributes:
        folder: The plan directory.
        limits: The limits to open it with.
        lease: Descriptor of an open file that is locked.
    """

    folder: Path
    limits: Limits
    lease: int


@dataclass(frozen=True)
class Wishes:
    """Limits that a runtime asks for, None for the default.

    Attributes:
        context: Tokens of one sequence.
        sequences: Sequences live at once.
        batch: Tokens of one step.
    """

    context: int | None = None
    sequences: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class _Job:
    """A model file whose plan is wanted."""

    model: Path
    key: str
    sources: list[SourceFile]
    wishes: Wishes
    announce: Announce
    progress: Progress | None

    @property
    def folder(self) -> Path:
        return plans_folder() / self.key


def cached_plan(
    model: Path, wishes: Wishes, *, announce: Announce, progress: Progress | None
) -> CachedPlan:
    """Returns the plan of a model file, made now unless it is in the cache.

    A file is known again by its times and size, without reading it; else by its header and a
    sample of each tensor. If limits are asked for that are above the plan's, the plan is placed
    anew. Processes that want the same plan at once wait for the one that makes it.

    Args:
        model: A GGUF file.
        wishes: The limits that the plan must cover.
        announce: Told what is about to happen if that takes time.
        progress: Called with (bytes done, bytes in all) while weights are packed.

    Raises:
        ModelError: The file is malformed or not supported.
        PlacementError: The model does not fit the devices.
        PlanError: A limit is wrong, or the cache cannot be written.
    """
    key, sources = _identify(model)
    job = _Job(model, key, sources, wishes, announce, progress)

    def wait() -> None:
        announce(f"another process is partitioning {model}; waiting for it")

    with _writing_cache():
        plans_folder().mkdir(parents=True, exist_ok=True)
        with locked(lock_path(key), shared=True, on_wait=wait):
            found = _open(job)
        if found is None:
            with locked(lock_path(key), shared=False, on_wait=wait):
                found = _open(job) or _make(job)
        return found


def _identify(model: Path) -> tuple[str, list[SourceFile]]:
    """Returns the key of a model and the files it consists of."""
    file = source_file(model)
    for key, record in records():
        if file is not None and record.describes(file):
            return key, record.sources
    from moesaic.partitioner.gguf import read_gguf  # takes a moment

    gguf = read_gguf(model)
    sources = [found for found in map(source_file, gguf.files) if found is not None]
    return f"{gguf.identity()}-{VERSION}", sources


def _open(job: _Job) -> CachedPlan | None:
    """Returns the plan if it is there, whole, and large enough."""
    record = read_record(job.key)
    plan = _whole_plan(job, record, lambda _: None)
    if record is None or plan is None:
        return None
    limits = _limits(job, record.defaults)
    if _grown(plan.limits, limits) != plan.limits:
        return None
    return _lease(job, record, limits)


def _make(job: _Job) -> CachedPlan:
    """Makes the plan, or places it anew; only for who holds the lock alone."""
    clear_leftovers(job.key)
    record = read_record(job.key)
    plan = _whole_plan(job, record, job.announce)
    if record is None or plan is None:
        record, plan = _partition(job)
    limits = _limits(job, record.defaults)
    if _grown(plan.limits, limits) != plan.limits:
        _place_anew(job, plan.limits, limits)
    return _lease(job, record, limits)


def _lease(job: _Job, record: Record, limits: Limits) -> CachedPlan:
    lease = share(job.folder / "weights.bin")
    with suppress(OSError):  # a cache that can only be read serves all the same
        if record.sources != job.sources:
            _write_record(job.key, msgspec.structs.replace(record, sources=job.sources))
        os.utime(record_path(job.key))
    return CachedPlan(job.folder, limits, lease)


def _whole_plan(job: _Job, record: Record | None, announce: Announce) -> PlanFile | None:
    """Returns what is in the cache for the model, None if it cannot be used."""
    if record is None:
        return None
    if record.made_with != __version__:
        announce(f"the cached plan of {job.model} was made by moesaic {record.made_with}")
        return None
    try:
        plan = read_plan(job.folder)
        check_weights(job.folder, plan)
    except PlanError as error:
        announce(f"the cached plan of {job.model} is damaged: {error}")
        return None
    sizes = _fixed_files(job.folder)
    for name, size in record.files.items():
        if sizes.get(name) != size:
            announce(f"the cached plan of {job.model} is damaged: {name} is not as it was written")
            return None
    return plan


def _partition(job: _Job) -> tuple[Record, PlanFile]:
    from moesaic.partitioner import partition
    from moesaic.partitioner.planning import choose_limits

    size = sum(source.stat[2] for source in job.sources)
    job.announce(
        f"partitioning {job.model} ({_readable(size)}) into {job.folder}; "
        "next time it opens at once"
    )
    record_path(job.key).unlink(missing_ok=True)
    if job.folder.exists():
        shutil.rmtree(job.folder)
    _require_space(size)
    try:
        made = partition(
            job.model,
            job.folder,
            context=job.wishes.context,
            sequences=job.wishes.sequences,
            batch=job.wishes.batch,
            progress=job.progress,
        )
    except BaseException:
        lock_path(job.key).unlink(missing_ok=True)
        raise
    plan = made.file
    record = Record(
        name=plan.model.name,
        architecture=plan.model.architecture,
        sources=job.sources,
        checked=time.time_ns(),
        made_with=__version__,
        defaults=choose_limits(plan.model.context_length),
        files=_fixed_files(job.folder),
    )
    _write_record(job.key, record)
    return record, plan


def _place_anew(job: _Job, old: Limits, limits: Limits) -> None:
    from moesaic.partitioner import partition

    grown = _grown(old, limits)
    job.announce(
        f"placing the cached plan of {job.model} anew: context {grown.context}, "
        f"{grown.sequences} sequences, batch {grown.batch}"
    )
    partition(job.folder, context=grown.context, sequences=grown.sequences, batch=grown.batch)


def _limits(job: _Job, defaults: Limits) -> Limits:
    """Returns the limits asked for, with the model's defaults for the rest."""
    asked = {name: value for name, value in asdict(job.wishes).items() if value is not None}
    return msgspec.structs.replace(defaults, **asked)


def _grown(old: Limits, asked: Limits) -> Limits:
    """Returns limits that cover both."""
    return msgspec.structs.replace(
        old,
        context=max(old.context, asked.context),
        sequences=max(old.sequences, asked.sequences),
        batch=max(old.batch, asked.batch),
    )


def _fixed_files(folder: Path) -> dict[str, int]:
    """Returns the sizes of a plan's files but ``plan.json``, which placing anew replaces."""
    paths = [path for path in folder.iterdir() if path.name not in _REPLACED]
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def _write_record(key: str, record: Record) -> None:
    """Replaces the description of a plan at once."""
    path = record_path(key)
    temporary = path.with_name(f".{key}.{os.getpid()}.record")
    try:
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _require_space(size: int) -> None:
    """A plan is about as large as the model; the partitioner checks again to the byte."""
    free = shutil.disk_usage(plans_folder()).free
    if free < size:
        raise PlanError(
            f"{plans_folder()}: needs {size} bytes, but only {free} are free on that disk",
            hint=_ELSEWHERE,
        )


@contextmanager
def _writing_cache() -> Iterator[None]:
    """Turns errors of the operating system into ones that say how to use another folder."""
    try:
        yield
    except OSError as error:
        where = error.filename or plans_folder()
        raise PlanError(
            f"{where}: the cache cannot be used: {error.strerror}", hint=_ELSEWHERE
        ) from error
    except PlanError as error:
        if isinstance(error.__cause__, OSError):
            raise PlanError(str(error), hint=_ELSEWHERE) from error
        raise
