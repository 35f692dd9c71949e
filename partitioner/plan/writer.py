"""Writes plan directories: whole or not at all."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import onnx_ir as ir

from moesaic.errors import PlanError
from moesaic.partitioner.plan.card import CARD_FILE, file_sizes, is_edited, model_card
from moesaic.partitioner.plan.partial import exchange, partial_folder
from moesaic.plan_format import PlanFile
from moesaic.replace import replace_files, sync

__all__ = [
    "MODEL_FILE",
    "PLAN_FILE",
    "WEIGHTS_FILE",
    "check_target",
    "encode_graph",
    "encode_plan",
    "new_directory",
    "replace_plan",
    "require_space",
    "writing",
]

MODEL_FILE = "model.onnx"
PLAN_FILE = "plan.json"
WEIGHTS_FILE = "weights.bin"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "free some space or write the plan elsewhere"
_CHECK_PATH = "check the path and its permissions, or write the plan elsewhere"


def encode_graph(graph: ir.Model) -> tuple[bytes, str]:
    """Returns the content of ``model.onnx`` and its sha256 in hexadecimal."""
    data = ir.to_proto(graph).SerializeToString(deterministic=True)
    return data, hashlib.sha256(data).hexdigest()


def encode_plan(plan: PlanFile) -> bytes:
    """Returns the content of ``plan.json``."""
    return msgspec.json.encode(plan) + b"\n"


def require_space(target: Path, needed: int) -> int:
    """Returns the free bytes of the disk of `target`, which need not exist.

    Raises:
        PlanError: They are fewer than needed.
    """
    with writing(target):
        existing = next(folder for folder in target.absolute().parents if folder.exists())
        free = shutil.disk_usage(existing).free
    if needed > free:
        raise PlanError(
            f"{target}: needs {needed} bytes, but only {free} are free on that disk",
            hint=_MAKE_ROOM,
        )
    return free


@contextmanager
def new_directory(target: Path, *, force: bool) -> Iterator[Path]:
    """Yields a temporary folder that becomes `target` when the block ends without an error.

    Everything in it is synced to the disk first. After an error nothing is left behind.

    Args:
        target: The folder to make. It must not exist, be empty, or with `force` be a plan.
        force: Whether an existing plan is replaced.

    Raises:
        PlanError: The target exists, another process writes it, or it cannot be written.
    """
    check_target(target, force=force)
    with ExitStack() as stack:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(partial_folder(target))
        yield folder
        with writing(target):
            _open_to_umask(folder)
            for path in folder.rglob("*"):
                sync(path)
            sync(folder)
            _put(folder, target, force=force)
            sync(target.parent)


def replace_plan(folder: Path, plan: PlanFile, graph: bytes | None = None) -> None:
    """Replaces the ``plan.json`` of a plan, with `graph` its ``model.onnx`` just before.

    A crash between the two leaves the old plan, which still runs, beside the new graph. The card
    is replaced last, unless somebody edited it.
    """
    files = {} if graph is None else {folder / MODEL_FILE: graph}
    files[folder / PLAN_FILE] = encode_plan(plan)
    with writing(folder / PLAN_FILE):
        if not is_edited(folder):
            sizes = file_sizes(folder) | {path.name: len(data) for path, data in files.items()}
            files[folder / CARD_FILE] = model_card(plan, sizes).encode()
        replace_files(files)


def check_target(target: Path, *, force: bool) -> None:
    """Raises a `PlanError` if a plan may not be written to `target`."""
    with writing(target):
        if not os.path.lexists(target) or _is_empty(target):
            return
        is_plan = (target / PLAN_FILE).is_file() and not target.is_symlink()
    if not is_plan:
        raise PlanError(
            f"{target} exists and is not a plan directory",
            hint="choose another output; only plans are replaced, even with --force",
        )
    if not force:
        raise PlanError(
            f"{target} exists", hint="replace it with --force, or choose another output"
        )


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not target.is_symlink() and not any(target.iterdir())


def _put(folder: Path, target: Path, *, force: bool) -> None:
    """Renames `folder` to `target`; a plan in its place becomes `folder`, to be removed."""
    if not (force and target.exists()):
        folder.rename(target)  # replaces an empty folder, fails if someone filled it meanwhile
    elif not exchange(folder, target):
        _put_in_two_steps(folder, target)


def _put_in_two_steps(folder: Path, target: Path) -> None:
    """Moves the old plan aside first: for a moment there is none."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _open_to_umask(folder: Path) -> None:
    """Gives a folder made by mkdtemp, which is private, the usual rights."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an error of the operating system into a `PlanError` about `path`."""
    try:
        yield
    except OSError as error:
        hint = _MAKE_ROOM if error.errno in _FULL else _CHECK_PATH
        raise PlanError(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
