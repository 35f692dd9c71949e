"""What a synthetic model is made of: tensors with a spread, and the keys that every model has.

``Tensor.sigma`` is the spread of the weights, chosen so that activations keep their size from layer
to layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGUFWriter, LlamaFileType
from gguf import GGMLQuantizationType as Type


@dataclass(frozen=True)
class Tensor:
    """One tensor: numpy shape (columns last), type, spread and mean of its values."""

    name: str
    shape: tuple[int, ...]
    kind: Type
    sigma: float
    mean: float = 0.0

    @property
    def bytes(self) -> int:
        """Size in the file, without alignment."""
        values, size = GGML_QUANT_SIZES[self.kind]
        return int(math.prod(self.shape) // values * size)


@dataclass(frozen=True)
class Model:
    """Sizes of one model; ``layers`` may be cut, ``of_layers`` is what types are chosen by."""

    name: str
    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    experts: int
    used: int
    vocab: int
    context: int
    theta: float
    file_type: LlamaFileType
    tensors: Callable[[Model], Iterator[Tensor]]
    metadata: Callable[[GGUFWriter, Model], None]
    of_layers: int


def matrix(name: str, rows: int, columns: int, kind: Type, *stack: int) -> Tensor:
    """A weight, or a stack of them, that keeps the size of what it multiplies."""
    return Tensor(name, (*stack, rows, columns), kind, round(1 / math.sqrt(columns), 5))


def norm(name: str, width: int) -> Tensor:
    """Weights of a norm, around 1."""
    return Tensor(name, (width,), Type.F32, 0.1, 1.0)


def bias(name: str, *shape: int) -> Tensor:
    """A small bias."""
    return Tensor(name, shape, Type.F32, 0.05)


def ends(m: Model, embedding: Type, head: Type) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding, last norm, and a head whose logits have a spread of about 3."""
    return (
        Tensor("token_embd.weight", (m.vocab, m.width), embedding, 1.0),
        norm("output_norm.weight", m.width),
        Tensor("output.weight", (m.vocab, m.width), head, round(3 / math.sqrt(m.width), 5)),
    )


def common_metadata(w: GGUFWriter, m: Model, dense_ff: int | None = None) -> None:
    """The keys that every model has; `dense_ff` is the width of dense layers beside experts."""
    w.add_name(f"synthetic {m.name}")
    w.add_file_type(m.file_type)
    w.add_quantization_version(2)
    w.add_block_count(m.layers)
    w.add_context_length(m.context)
    w.add_embedding_length(m.width)
    w.add_feed_forward_length(dense_ff or m.ff)
    w.add_head_count(m.heads)
    w.add_head_count_kv(m.kv_heads)
    w.add_rope_freq_base(m.theta)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_expert_count(m.experts)
    w.add_expert_used_count(m.used)
    w.add_key_length(m.head_dim)
    w.add_value_length(m.head_dim)
