"""Writes `weights.bin`: packs, hashes and writes one chunk after the other.

While one chunk is hashed and written, the next one is packed on all cores, so memory is bounded by
a few chunks whatever the size of the model.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import xxhash
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from moesaic import _pack as native
from moesaic.errors import ModelError
from moesaic.partitioner.gguf.cursor import DAMAGED
from moesaic.partitioner.gguf.dtypes import row_bytes
from moesaic.partitioner.plan.codecs import CODECS, STRIP_ROWS
from moesaic.partitioner.plan.sources import Blocks, TensorSource, lay_out, weights_bytes
from moesaic.partitioner.plan.writer import require_space, writing
from moesaic.plan_format import Tensor, weights_header

__all__ = ["Progress", "pack_weights"]

CHUNK_BYTES = 16 << 20

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) after each chunk; it may raise to stop the packing."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows `first` .. `first + count` of a matrix, which go to byte `out` of the chunk."""

    blocks: Blocks
    codec: str
    cols: int
    first: int
    count: int
    out: int

    @property
    def offset(self) -> int:
        """Where the first of the rows begins in the blocks' data."""
        return self.blocks.offset + self.first * row_bytes(self.blocks.type, self.cols)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Bytes `start` .. `end` of a tensor: whole strips and the padding between them."""

    tensor: Tensor
    start: int
    end: int
    rows: list[_Rows]


def pack_weights(
    sources: Sequence[TensorSource],
    path: Path,
    progress: Progress | None = None,
    *,
    target: Path | None = None,
) -> list[Tensor]:
    """Packs tensors into a new `weights.bin` and syncs it to the disk.

    Args:
        sources: The tensors, in the order of the file.
        path: The file to write; it must not exist. After an error it is left behind, incomplete.
        progress: Told about every chunk.
        target: What errors name instead of `path`, if that is a temporary place.

    Returns:
        What `lay_out` returns, with the hashes.

    Raises:
        ModelError: A source cannot be read, ends early, or holds a scale or a float weight that is
            not finite; file, tensor and place are named.
        PlanError: There is not enough space, or the file cannot be written.
    """
    target = target or path
    tensors = lay_out(sources)
    size = weights_bytes(tensors)
    require_space(target, size)
    hashes = {tensor.name: xxhash.xxh3_64() for tensor in tensors}
    with ExitStack() as stack:
        with writing(target):
            file = stack.enter_context(path.open("xb", buffering=0))
            os.ftruncate(file.fileno(), size)
        packer = stack.enter_context(_Packer())
        for chunk, data in packer.run(chain.from_iterable(map(_cut, sources, tensors))):
            hashes[chunk.tensor.name].update(data)
            with writing(target):
                _write_all(file.fileno(), data, chunk.tensor.offset + chunk.start)
            if progress:
                progress(chunk.tensor.offset + chunk.end, size)
        packed = [msgspec.structs.replace(t, xxh3=hashes[t.name].hexdigest()) for t in tensors]
        with writing(target):
            _write_all(file.fileno(), weights_header(packed, size), 0)
            os.fsync(file.fileno())
    return packed


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _cut(source: TensorSource, tensor: Tensor) -> Iterator[_Chunk]:
    """Cuts a tensor into chunks of about `CHUNK_BYTES`, in the order of the file."""
    start, rows = 0, list[_Rows]()
    for record in range(tensor.count):
        for part, part_source in zip(tensor.parts, source.parts, strict=True):
            blocks, strip = part_source.records[record], CODECS[part.codec].strip_bytes(part.cols)
            position, first = record * tensor.stride + part.offset, 0
            while first < part.rows:
                strips = (start + max(CHUNK_BYTES, strip) - position) // strip
                if strips <= 0:
                    yield _Chunk(tensor, start, position, rows)
                    start, rows = position, []
                    continue
                count = min(strips * STRIP_ROWS, part.rows - first)
                rows.append(_Rows(blocks, part.codec, part.cols, first, count, position - start))
                first += count
                position += -(-count // STRIP_ROWS) * strip
    yield _Chunk(tensor, start, tensor.bytes, rows)


class _Packer:
    """Packs chunks one after the other, on a thread of its own that drives all cores."""

    def __init__(self) -> None:
        self._threads = native.usable_cores()
        self._executor = ThreadPoolExecutor(1)
        self._files: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()  # before the files it reads are closed
        for fd in self._files.values():
            os.close(fd)

    def run(self, chunks: Iterable[_Chunk]) -> Iterator[tuple[_Chunk, memoryview]]:
        """Yields each chunk with its bytes, which stay valid until the next one is asked for."""
        running: Future[tuple[_Chunk, memoryview]] | None = None
        for chunk, buffer in zip(chunks, cycle([_Buffer(), _Buffer()]), strict=False):
            following = self._executor.submit(self._pack, chunk, buffer)
            if running:
                yield running.result()
            running = following
        if running:
            yield running.result()

    def _pack(self, chunk: _Chunk, buffer: "_Buffer") -> tuple[_Chunk, memoryview]:
        data = buffer.take(chunk.end - chunk.start)
        with ExitStack() as stack:
            try:
                pieces = [self._piece(rows, stack) for rows in chunk.rows]
                bad = native.pack(pieces, data, self._threads)
            except (OSError, EOFError) as error:
                names = {f"{rows.blocks.data}: tensor {rows.blocks.name!r}" for rows in chunk.rows}
                message = f"{', '.join(sorted(names)[:3])}: cannot be read: {error}"
                raise ModelError(message, hint=DAMAGED) from error
        if bad:
            piece, row, block = bad
            raise _not_finite(chunk.rows[piece], row, block)
        return chunk, data.data

    def _piece(self, rows: _Rows, stack: ExitStack) -> native.Piece:
        blocks, kind = rows.blocks, rows.blocks.type
        if isinstance(blocks.data, Path) and not blocks.decoded:
            fd, offset = self._open(blocks.data), rows.offset
        else:
            fd, offset = os.memfd_create("values"), 0
            stack.callback(os.close, fd)
            _write_all(fd, self._values(rows), 0)
            kind = GGMLQuantizationType.F32 if blocks.decoded else kind
        return native.Piece(fd, offset, int(kind), rows.codec, rows.count, rows.cols, rows.out)

    def _values(self, rows: _Rows) -> memoryview:
        """Returns the bytes of rows that the native packer cannot read from a file as they are."""
        blocks = rows.blocks
        size = rows.count * row_bytes(blocks.type, rows.cols)
        if not isinstance(blocks.data, Path):
            return blocks.data.data.cast("B")[rows.offset : rows.offset + size]
        encoded = np.frombuffer(os.pread(self._open(blocks.data), size, rows.offset), np.uint8)
        if encoded.size < size:
            raise EOFError(f"the file ends early: {size} bytes wanted at {rows.offset}")
        with np.errstate(all="ignore"):  # what is not finite is found when it is packed
            values = quants.dequantize(encoded.reshape(rows.count, -1), blocks.type)
        return np.ascontiguousarray(values, np.float32).data.cast("B")

    def _open(self, path: Path) -> int:
        if path not in self._files:
            try:
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ModelError(
                    f"{path}: cannot be read: {error.strerror}", hint="check the model file"
                ) from error
        return self._files[path]


class _Buffer:
    """Memory that is reused while it is large enough."""

    def __init__(self) -> None:
        self._data = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        if self._data.size < size:
            self._data = np.empty(size, np.uint8)
        return self._data[:size]


def _not_finite(rows: _Rows, row: int, block: int) -> ModelError:
    blocks, what = rows.blocks, "weight" if CODECS[rows.codec].is_float else "scale of block"
    where = blocks.data if isinstance(blocks.data, Path) else "computed"
    return ModelError(
        f"{where}: tensor {blocks.name!r}: row {rows.first + row}: {what} {block} is not finite "
        f"(byte {rows.offset + row * row_bytes(blocks.type, rows.cols)} and on)",
        hint=DAMAGED,
    )
