"""Checks every hash of a plan directory: what opening it does not read, this does."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from moesaic.errors import PlanError
from moesaic.plan_file import file_inside, reading
from moesaic.plan_format import WEIGHTS_HEADER_BYTES, PlanFile, Tensor
from moesaic.runtime.plan import load_plan

__all__ = ["Verified", "verify_plan"]

CHUNK_BYTES = 8 << 20
MAX_NAMED = 5
MODEL_FILE = "model.onnx"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found to be as it was written.

    Attributes:
        tensors: Number of tensors.
        weights_bytes: Bytes of ``weights.bin``, all of which were read.
        model_bytes: Bytes of ``model.onnx``.
    """

    tensors: int
    weights_bytes: int
    model_bytes: int


def verify_plan(folder: str | os.PathLike[str], progress: Progress | None = None) -> Verified:
    """Checks the plan as the runtime does, then the hash of every tensor and of ``model.onnx``.

    Args:
        folder: A plan directory.
        progress: Called with (bytes done, bytes in all).

    Raises:
        PlanError: Something does not fit; the message names the tensors and files.
    """
    folder = Path(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # another model.onnx is an error below
        loaded = load_plan(folder)
    model_bytes, problems = _check_model(folder, loaded.file)
    size = loaded.weights.stat().st_size
    with reading(loaded.weights), loaded.weights.open("rb", buffering=0) as stream:
        reader = _Reader(stream.fileno(), size, progress)
        problems += [f"{loaded.weights}: {text}" for text in _check_weights(reader, loaded.file)]
    if problems:
        more = len(problems) - MAX_NAMED
        raise PlanError(
            "; ".join(problems[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else ""),
            hint="the plan is damaged: partition the model, or download the plan, again",
        )
    return Verified(len(loaded.file.tensors), size, model_bytes)


def _check_model(folder: Path, file: PlanFile) -> tuple[int, list[str]]:
    """Returns the size of ``model.onnx`` and what is wrong with it."""
    path = file_inside(folder, MODEL_FILE)
    with reading(path), path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        size = os.fstat(stream.fileno()).st_size
    if found == file.model_sha256:
        return size, []
    return size, [f"{path}: sha256: expected {file.model_sha256}, got {found}"]


class _Reader:
    """Reads a file of `size` bytes from front to back, in chunks of one buffer."""

    def __init__(self, fd: int, size: int, progress: Progress | None) -> None:
        self._fd = fd
        self.size = size
        self._progress = progress
        self._buffer = memoryview(bytearray(CHUNK_BYTES))

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """Yields the bytes `start` .. `end`; each chunk is valid until the next."""
        while start < end:
            count = os.preadv(self._fd, [self._buffer[: min(CHUNK_BYTES, end - start)]], start)
            if not count:
                raise OSError(0, "it became shorter while it was read")
            yield self._buffer[:count]
            start += count
            if self._progress:
                self._progress(start, self.size)


def _check_weights(reader: _Reader, file: PlanFile) -> Iterator[str]:
    """Yields what is wrong, in the order of the file; the native program checked the bounds."""
    end = WEIGHTS_HEADER_BYTES
    for tensor in sorted(file.tensors, key=lambda tensor: tensor.offset):
        yield from _check_gap(reader, end, tensor.offset)
        yield from _check_tensor(reader, tensor)
        end = tensor.offset + tensor.bytes
    yield from _check_gap(reader, end, reader.size)


def _check_tensor(reader: _Reader, tensor: Tensor) -> Iterator[str]:
    digest = xxhash.xxh3_64()
    for chunk in reader.chunks(tensor.offset, tensor.offset + tensor.bytes):
        digest.update(chunk)
    found = digest.hexdigest()
    if found != tensor.xxh3:
        yield (
            f"tensor {tensor.name!r} (bytes {tensor.offset} to {tensor.offset + tensor.bytes}): "
            f"xxh3: expected {tensor.xxh3}, got {found}"
        )


def _check_gap(reader: _Reader, start: int, end: int) -> Iterator[str]:
    if any(bytes(chunk).strip(b"\0") for chunk in reader.chunks(start, end)):
        yield f"bytes {start} to {end} are not of a tensor and not zero"
