"""Takes tensors from a model file, checks them, and makes them weights of the graph."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from moesaic.errors import ModelError
from moesaic.partitioner.gguf import GgufFile, TensorInfo
from moesaic.partitioner.gguf.dtypes import matrix_codec, row_bytes, vector_codec
from moesaic.partitioner.gguf.metadata import CONVERT
from moesaic.partitioner.plan.codecs import TENSOR_ALIGNMENT, align
from moesaic.partitioner.plan.sources import (
    Blocks,
    PartSource,
    TensorSource,
    lay_out,
    stacked,
    vector_part,
)
from moesaic.plan_format import WEIGHTS_HEADER_BYTES, Tensor

WEIGHTS_FILE = "weights.bin"


class Weights:
    """The weights of one model, in the order in which its nodes ask for them.

    Every tensor is checked when it is taken: its name, its shape, its type. Names get the prefix of
    the current layer. A weight asked for twice is stored once.

    Attributes:
        sources: The weights so far, with the origin of every part.
        tensors: Their places in ``weights.bin``, not hashed yet.
        values: Their graph initializers.
    """

    def __init__(self, gguf: GgufFile) -> None:
        self.gguf = gguf
        self.sources: dict[str, TensorSource] = {}
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, ir.Value] = {}
        self._prefix = ""
        self._taken: set[str] = set()
        self._layered = {name.split(".", 2)[-1] for name in gguf.tensors if name.startswith("blk.")}
        self._end = WEIGHTS_HEADER_BYTES

    @contextmanager
    def layer(self, index: int) -> Iterator[None]:
        """Puts `blk.<index>.` before every name."""
        self._prefix = f"blk.{index}."
        yield
        self._prefix = ""

    def fail(self, tensor: str, message: str, *, hint: str = CONVERT) -> NoReturn:
        """Raises a `ModelError` about a tensor, by its full name."""
        raise ModelError(f"{self.gguf.path}: tensor {tensor!r}: {message}", hint=hint)

    def refuse(self, name: str, why: str) -> None:
        """Raises a `ModelError` if the file has a tensor that changes what is computed."""
        if self.has(name):
            self.fail(
                self._prefix + name,
                why,
                hint="the model is a variant that this version does not support",
            )

    def has(self, name: str) -> bool:
        """Tells whether the file has a tensor."""
        return self._prefix + name in self.gguf.tensors

    def has_in_all_layers(self, name: str) -> bool:
        """Tells whether the file has a tensor that all layers have to have if one has it."""
        found = self.has(name)
        if self._prefix and not found and name in self._layered:
            self.fail(self._prefix + name, "is missing, but other layers have it")
        return found

    def take(self, name: str, *shape: int) -> TensorInfo:
        """Returns a tensor after checking its shape (NumPy order), and counts it as used."""
        info = self.gguf.tensor(self._prefix + name)
        if info.shape != shape:
            self.fail(
                info.name,
                f"expected shape {list(shape)} but got {list(info.shape)}",
                hint="the file does not match its own metadata; convert the model again",
            )
        self._taken.add(info.name)
        return info

    def skip_blocks(self, first: int, end: int) -> None:
        """Counts all tensors of the blocks `first` .. `end`, which predict further tokens, as used.

        Raises:
            ModelError: One of these blocks cannot do that; the message names the key.
        """
        for name in self.gguf.tensors:
            block = re.match(r"blk\.([0-9]+)\.", name)
            if block and first <= int(block[1]) < end:
                if f"blk.{block[1]}.nextn.eh_proj.weight" not in self.gguf.tensors:
                    self.gguf.hyper.fail(
                        "nextn_predict_layers",
                        f"is {end - first}, but block {block[1]} has no tensor "
                        "'nextn.eh_proj.weight': it is a layer like the others",
                    )
                self._taken.add(name)

    def refuse_unused(self) -> None:
        """Raises a `ModelError` if the file has a tensor that nobody took."""
        unused = [name for name in self.gguf.tensors if name not in self._taken]
        if unused:
            more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
            family = self.gguf.architecture
            self.fail(
                unused[0],
                f"unexpected in a model of architecture {family!r}{more}",
                hint="the model is a variant that this version does not support",
            )

    def floats(self, name: str, length: int) -> NDArray[np.float32]:
        """Returns the values of a float vector."""
        info = self.take(name, length)
        vector_codec(info)
        return self.gguf.dequantize(info.name)

    # Plain weights

    def vector(
        self, name: str, length: int, *, within: tuple[str, int, int] | None = None
    ) -> ir.Value:
        """Returns a float vector, stored as float32; `within` is as for `matrix`."""
        tensor, whole, first = within or (name, length, 0)
        info = self.take(tensor, whole)
        start = info.offset + first * (info.nbytes // whole)
        blocks = Blocks(info.name, info.type, info.path, start)
        role = "bias" if name.endswith(".bias") else "weight"
        return self.add(name, [PartSource(role, vector_codec(info), length, 1, (blocks,))])

    def matrix(
        self, name: str, rows: int, cols: int, *, within: tuple[str, int, int] | None = None
    ) -> ir.Value:
        """Returns a matrix of `rows` outputs and `cols` inputs.

        `within` is (tensor, all its rows, first row) for a range of rows of a fused tensor.
        """
        tensor, all_rows, first = within or (name, rows, 0)
        info = self.take(tensor, all_rows, cols)
        return self.add(name, [_rows(info, "weight", rows, [first])])

    def row(self, name: str, cols: int) -> ir.Value:
        """Returns a matrix of one output, which files keep as a vector or with a further axis."""
        flat = self.gguf.tensor(self._prefix + name).shape == (cols,)
        info = self.take(name, cols) if flat else self.take(name, 1, cols)
        return self.add(name, [_rows(info, "weight", 1, [0])])

    def computed(self, name: str, values: ArrayLike) -> ir.Value:
        """Returns a vector that is not in the file, stored as float32; `name` is its full name."""
        return self._add(name, [vector_part(name, np.asarray(values, np.float32))])

    # Expert stacks

    def add(self, name: str, parts: Sequence[PartSource]) -> ir.Value:
        """Returns a weight made of parts that have one record each, or one for each expert."""
        return self._add(self._prefix + name, parts)

    def expert_matrices(self, role: str, name: str, count: int, rows: int, cols: int) -> PartSource:
        """Returns a part from `<name>_exps.weight`, or from the older `<name>.<expert>.weight`."""
        if self.has(f"{name}.0.weight") and not self.has(f"{name}_exps.weight"):
            infos = [self.take(f"{name}.{e}.weight", rows, cols) for e in range(count)]
            if len({info.type for info in infos}) > 1:  # one codec a part: float32 holds them all
                return stacked([_decoded(info, role) for info in infos])
            return stacked([_rows(info, role, rows, [0]) for info in infos])
        return self.expert_rows(role, f"{name}_exps.weight", (count, rows, cols), 0, rows)

    def expert_rows(
        self, role: str, tensor: str, shape: tuple[int, int, int], first: int, rows: int
    ) -> PartSource:
        """Returns a part from rows `first` .. `first + rows` of every matrix of a merged tensor."""
        starts = [expert * shape[1] + first for expert in range(shape[0])]
        return _rows(self.take(tensor, *shape), role, rows, starts)

    def expert_biases(self, role: str, name: str, count: int, length: int) -> PartSource:
        """Returns a part from the rows of a float tensor [count, length]."""
        info = self.take(name, count, length)
        codec, step = vector_codec(info), info.nbytes // count
        blocks = (
            Blocks(info.name, info.type, info.path, info.offset + e * step) for e in range(count)
        )
        return PartSource(role, codec, length, 1, tuple(blocks))

    def _add(self, name: str, parts: Sequence[PartSource]) -> ir.Value:
        if name not in self.values:
            source = TensorSource(name, tuple(parts))
            tensor = msgspec.structs.replace(lay_out([source])[0], offset=self._end)
            self._end = align(tensor.offset + tensor.bytes, TENSOR_ALIGNMENT)
            self.sources[name], self.tensors[name] = source, tensor
            self.values[name] = _initializer(tensor)
        return self.values[name]


def _rows(info: TensorInfo, role: str, rows: int, starts: Sequence[int]) -> PartSource:
    """Returns a part whose record e is the rows `starts[e]` .. `starts[e] + rows` of a tensor."""
    codec, cols = matrix_codec(info), info.shape[-1]
    step = row_bytes(info.type, cols)
    blocks = (
        Blocks(info.name, info.type, info.path, info.offset + start * step) for start in starts
    )
    return PartSource(role, codec, rows, cols, tuple(blocks))


def _decoded(info: TensorInfo, role: str) -> PartSource:
    """Returns a part of one record, a whole matrix, that is stored as float32 whatever its type."""
    matrix_codec(info)
    rows, cols = info.shape
    blocks = Blocks(info.name, info.type, info.path, info.offset, decoded=True)
    return PartSource(role, "f32", rows, cols, (blocks,))


def _initializer(tensor: Tensor) -> ir.Value:
    """Returns the graph value of a tensor: UINT8 [bytes], or [count, stride] for a stack."""
    shape = ir.Shape([tensor.bytes] if tensor.count == 1 else [tensor.count, tensor.stride])
    dtype = ir.DataType.UINT8
    data = ir.ExternalTensor(
        WEIGHTS_FILE, tensor.offset, tensor.bytes, dtype, shape=shape, name=tensor.name
    )
    return ir.Value(name=tensor.name, shape=shape, type=ir.TensorType(dtype), const_value=data)
