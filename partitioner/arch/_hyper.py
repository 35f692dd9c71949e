"""The hyper-parameters that decoder families have in common, read from metadata and checked."""

from dataclasses import dataclass
from typing import Any

from moesaic.partitioner.gguf import GgufFile, Metadata

MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
MAX_HEADS = 4096
MAX_EXPERTS = 4096
MAX_CONTEXT = 1 << 28


@dataclass(frozen=True, slots=True)
class Hyper:
    """What a decoder of the usual kind is made of.

    Attributes:
        layers: Number of layers.
        hidden: Width of the residual stream.
        vocab: Rows of the embedding.
        context: Trained context in tokens.
        heads: Query heads, by layer.
        kv_heads: Key and value heads, by layer.
        k_dim: Width of a key head.
        v_dim: Width of a value head.
        eps: Epsilon of the norms.
        experts: Experts of a layer, 0 for a dense model.
        experts_used: Experts that a token uses.
    """

    layers: int
    hidden: int
    vocab: int
    context: int
    heads: list[int]
    kv_heads: list[int]
    k_dim: int
    v_dim: int
    eps: float
    experts: int
    experts_used: int


def read_hyper(gguf: GgufFile) -> Hyper:
    """Reads the common keys of a model file, or raises a `ModelError` that names the key."""
    meta = gguf.hyper
    refuse_other(meta, "attention.causal", True)
    refuse_other(meta, "expert_group_count", 0, 1)
    refuse_other(meta, "attn_logit_softcapping", 0)
    refuse_other(meta, "logit_scale", 0, 1)
    layers = count(meta, "block_count", MAX_LAYERS)
    hidden = count(meta, "embedding_length", MAX_WIDTH)
    heads = _per_layer(meta, "attention.head_count", layers, MAX_HEADS)
    kv_heads = (
        _per_layer(meta, "attention.head_count_kv", layers, MAX_HEADS)
        if "attention.head_count_kv" in meta
        else heads
    )
    for layer, (q, kv) in enumerate(zip(heads, kv_heads, strict=True)):
        if q % kv:
            meta.fail("attention.head_count_kv", f"{kv} heads do not divide {q} in layer {layer}")
    experts = count(meta, "expert_count", MAX_EXPERTS, default=0)
    used = count(meta, "expert_used_count", experts) if experts else 0
    eps = meta.f32("attention.layer_norm_rms_epsilon")
    if not 0 < eps < 1:
        meta.fail("attention.layer_norm_rms_epsilon", f"expected 0 < eps < 1 but got {eps}")
    return Hyper(
        layers=layers,
        hidden=hidden,
        vocab=_vocabulary(gguf, hidden),
        context=count(meta, "context_length", MAX_CONTEXT),
        heads=heads,
        kv_heads=kv_heads,
        k_dim=_head_dim(meta, "attention.key_length", hidden, heads),
        v_dim=_head_dim(meta, "attention.value_length", hidden, heads),
        eps=eps,
        experts=experts,
        experts_used=used,
    )


def count(meta: Metadata, key: str, most: int, *, default: int | None = None) -> int:
    """Returns an integer from 1 to `most`; `default` when the key is missing, if given."""
    if default is not None and key not in meta:
        return default
    value = meta.u32(key)
    if not (1 if default is None else min(1, default)) <= value <= most:
        meta.fail(key, f"expected 1 to {most} but got {value}")
    return value


def refuse_other(meta: Metadata, key: str, *values: float) -> None:
    """Raises a `ModelError` if a key that changes the arithmetic has another than these values."""
    if key in meta and meta[key] not in values:
        meta.fail(
            key,
            f"expected {' or '.join(map(str, values))} but got {meta[key]}",
            hint="the model is a variant that this version does not support",
        )


def feed_forward(meta: Metadata, layers: int) -> list[int]:
    """Returns the inner width of the MLP (or of an expert) of each layer."""
    return _per_layer(meta, "feed_forward_length", layers, MAX_WIDTH)


def windowed_layers(meta: Metadata, layers: int, period: int) -> list[bool]:
    """Tells which layers have a window: all but the last of each period.

    The key `attention.sliding_window_pattern` gives another period, or an array with a truth value
    for each layer.
    """
    key = "attention.sliding_window_pattern"
    if meta.is_array(key):
        return _flags(meta, key, layers)
    period = count(meta, key, MAX_LAYERS, default=period)
    return [layer % period < period - 1 for layer in range(layers)]


def _flags(meta: Metadata, key: str, layers: int) -> list[bool]:
    values: list[Any] = list(meta[key])  # type: ignore[arg-type]
    if len(values) < layers or not set(values) <= {0, 1}:
        meta.fail(key, f"expected {layers} truth values, one a layer")
    return [bool(value) for value in values[:layers]]


def _per_layer(meta: Metadata, key: str, layers: int, most: int) -> list[int]:
    values = meta.per_layer(key, layers, int)
    for value in values:
        if not 1 <= value <= most:
            meta.fail(key, f"expected 1 to {most} but got {value}")
    return values


def _head_dim(meta: Metadata, key: str, hidden: int, heads: list[int]) -> int:
    if key not in meta and hidden % heads[0]:
        meta.fail(key, f"is missing, and {heads[0]} heads do not divide a width of {hidden}")
    return count(meta, key, MAX_WIDTH, default=hidden // heads[0])


def _vocabulary(gguf: GgufFile, hidden: int) -> int:
    """Returns the rows of the embedding, which is the truth about the size of the vocabulary."""
    shape = gguf.tensor("token_embd.weight").shape
    if len(shape) != 2 or shape[1] != hidden:
        gguf.metadata.fail(
            f"{gguf.architecture}.embedding_length",
            f"is {hidden}, but tensor 'token_embd.weight' has shape {list(shape)}",
        )
    tokens = gguf.metadata.array("tokenizer.ggml.tokens", str, [])
    if len(tokens) > shape[0]:
        gguf.metadata.fail(
            "tokenizer.ggml.tokens",
            f"{len(tokens)} tokens, but tensor 'token_embd.weight' has {shape[0]} rows",
        )
    return shape[0]
