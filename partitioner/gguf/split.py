"""Finds the parts of a split model and checks that they are one.

Each part says in `split.no` which one it is, from 0, and in `split.count` how many there are. The
first one holds the metadata. `split.tensors.count` is the number of tensors of all parts.
"""

import os
import re
from pathlib import Path

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.part import MAX_TENSORS, Part, read_part

MAX_PARTS = 4096
_NAME = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)
_OWN_KEYS = {"split.no", "general.alignment"}  # the others are the same in all parts
_FETCH = "the file is a part of another model, or was renamed or damaged; fetch every part again"


def read_split(first: Part) -> list[Part]:
    """Returns all parts of the model that begins with `first`: `first` alone if it is not split.

    Raises:
        ModelError: `first` is not the first part or not named like one, or a part is missing,
            malformed, there twice, or of another model. The message names file and field.
    """
    number, count = _number(first)
    if count == 1:
        return [first]
    if number:
        match = _NAME.fullmatch(first.path.name)
        name = f"{match[1]}-00001-of-{count:05}.gguf" if match else "whose name has 00001"
        first.metadata.fail(
            "split.no",
            f"the file is part {number + 1} of {count} of a split model",
            hint=f"give the first part, {name}; the others are found next to it",
        )
    names = _further_names(first.path, count)
    _check_files([first.path, *names])
    parts = [first, *(_read_next(first, path, n, count) for n, path in enumerate(names, 1))]
    _check_tensors(parts)
    expected = first.metadata.u32("split.tensors.count", None)
    found = sum(len(part.tensors) for part in parts)
    if expected not in (None, found):
        first.metadata.fail(
            "split.tensors.count", f"is {expected}, but the parts have {found} tensors", hint=_FETCH
        )
    return parts


def _number(part: Part) -> tuple[int, int]:
    """Returns (number from 0, number of parts) as a file states them."""
    meta = part.metadata
    number, count = meta.u32("split.no", 0), meta.u32("split.count", 1) or 1
    if count > MAX_PARTS:
        hint = "join them with `llama-gguf-split --merge`"
        meta.fail("split.count", f"{count} parts, more than the {MAX_PARTS} allowed", hint=hint)
    if number >= count:
        message = f"expected less than {count}, the split.count, but got {number}"
        meta.fail("split.no", message, hint=_FETCH)
    return number, count


def _further_names(first: Path, count: int) -> list[Path]:
    """Returns the names of the second and further parts, next to the first one."""
    match = _NAME.fullmatch(first.name)
    if not match or (int(match[2]), int(match[3])) != (1, count):
        raise ModelError(
            f"{first}: metadata key 'split.count': the file is the first of {count} parts, but its "
            f"name does not end in -00001-of-{count:05}.gguf",
            hint="give all parts the names under which they were published",
        )
    return [first.with_name(f"{match[1]}-{n:05}-of-{count:05}.gguf") for n in range(2, count + 1)]


def _check_files(paths: list[Path]) -> None:
    """Raises a `ModelError` if a part is missing, or one file stands for two of them."""
    found: dict[tuple[int, int], Path] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise ModelError(
                f"{path}: no such file, but {paths[0].name} is the first of {len(paths)} parts",
                hint="put all parts into one folder, under the names that they were published with",
            )
        if not os.path.exists(path):
            continue  # reading it will say why
        status = os.stat(path)
        other = found.setdefault((status.st_dev, status.st_ino), path)
        if other != path:
            raise ModelError(f"{path}: is the same file as {other.name}", hint=_FETCH)


def _read_next(first: Part, path: Path, number: int, count: int) -> Part:
    """Reads a further part and checks that it belongs to the first one."""
    part = read_part(path)
    for key, expected in (("split.no", number), ("split.count", count)):
        got = part.metadata.u32(key)
        if got != expected:
            part.metadata.fail(key, f"expected {expected} but got {got}", hint=_FETCH)
    for key, value in part.metadata.items():
        comparable = isinstance(value, str | int | float) and key not in _OWN_KEYS
        if comparable and key in first.metadata and value != first.metadata[key]:
            stated = str(first.metadata[key])[:80]
            message = f"is {str(value)[:80]!r}, but {stated!r} in {first.path.name}"
            part.metadata.fail(key, message, hint=_FETCH)
    return part


def _check_tensors(parts: list[Part]) -> None:
    """Raises a `ModelError` if two parts have the same tensor, or there are too many of them."""
    found: dict[str, Path] = {}
    for part in parts:
        for name in part.tensors:
            other = found.setdefault(name, part.path)
            if other != part.path:
                message = f"{part.path}: tensor {name!r}: is also in {other.name}"
                raise ModelError(message, hint=_FETCH)
    if len(found) > MAX_TENSORS:
        message = f"{len(found)} tensors in all, more than the {MAX_TENSORS} allowed"
        parts[0].metadata.fail("split.count", message, hint=_FETCH)
