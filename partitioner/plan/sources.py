"""Says where the weights of a plan come from: tensors of `weights.bin` in terms of GGUF blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from moesaic.errors import ModelError
from moesaic.partitioner.plan.codecs import TENSOR_ALIGNMENT, align, record_layout
from moesaic.plan_format import WEIGHTS_HEADER_BYTES, Tensor

__all__ = [
    "Blocks",
    "PartSource",
    "TensorSource",
    "lay_out",
    "stacked",
    "vector_part",
    "weights_bytes",
]


@dataclass(frozen=True, slots=True)
class Blocks:
    """The encoded rows of one matrix, one after the other.

    Attributes:
        name: The model's name of the tensor, for errors.
        type: How the rows are encoded.
        data: The file that holds them, or a contiguous array made by the partitioner.
        offset: Position of the first byte in `data`.
        decoded: Whether the rows, of a file, are decoded to float32 before they are packed.
    """

    name: str
    type: GGMLQuantizationType
    data: Path | NDArray[np.generic]
    offset: int
    decoded: bool = False


@dataclass(frozen=True, slots=True)
class PartSource:
    """One part of a tensor: `records[e]` is its matrix [rows, cols] in record e."""

    role: str
    codec: str
    rows: int
    cols: int
    records: tuple[Blocks, ...]


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor of `weights.bin`: its parts in order, all with the same number of records."""

    name: str
    parts: tuple[PartSource, ...]

    def __post_init__(self) -> None:
        counts = {len(part.records) for part in self.parts}
        if len(counts) != 1:
            raise ValueError(f"{self.name}: parts with different numbers of records: {counts}")


def vector_part(name: str, values: NDArray[np.float32]) -> PartSource:
    """Makes a part of one record from the numbers of a vector."""
    data = np.ascontiguousarray(values)
    blocks = Blocks(name, GGMLQuantizationType.F32, data, 0)
    return PartSource("weight", "f32", values.size, 1, (blocks,))


def stacked(parts: Sequence[PartSource]) -> PartSource:
    """Joins the records of several equal parts, for models that keep each expert by itself."""
    first = parts[0]
    for part in parts:
        if (part.codec, part.rows, part.cols) != (first.codec, first.rows, first.cols):
            raise ModelError(
                f"tensor {part.records[0].name!r}: type and shape {part.codec} "
                f"[{part.rows}, {part.cols}] differ from those of {first.records[0].name!r}: "
                f"{first.codec} [{first.rows}, {first.cols}]",
                hint="convert the model anew, with all experts of a layer alike",
            )
    records = tuple(blocks for part in parts for blocks in part.records)
    return PartSource(first.role, first.codec, first.rows, first.cols, records)


def lay_out(sources: Sequence[TensorSource]) -> list[Tensor]:
    """Places tensors in `weights.bin`, in the order given; `xxh3` is still empty."""
    tensors, end = [], WEIGHTS_HEADER_BYTES
    for source in sources:
        parts, stride = record_layout((p.role, p.codec, p.rows, p.cols) for p in source.parts)
        count = len(source.parts[0].records)
        tensor = Tensor(
            name=source.name,
            offset=align(end, TENSOR_ALIGNMENT),
            bytes=count * stride,
            count=count,
            stride=stride,
            parts=parts,
            xxh3="",
        )
        tensors.append(tensor)
        end = tensor.offset + tensor.bytes
    return tensors


def weights_bytes(tensors: Sequence[Tensor]) -> int:
    """Returns the size of the `weights.bin` that holds these tensors."""
    return max((t.offset + t.bytes for t in tensors), default=WEIGHTS_HEADER_BYTES)
