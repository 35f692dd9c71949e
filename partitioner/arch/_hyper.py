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
        blocks: Number of blocks: layers, and behind them heads that predict further tokens.
        hidden: Width of the residual stream.
        vocab: Rows of the embedding.
        context: Trained context in tokens.
        heads: Query heads, by layer.
        kv_heads: Key and value heads, by layer.
        k_dim: Width of a key head.
        v_dim: Width of a value head.
        attention_scale: Factor on attention scores.
        eps: Epsilon of the norms.
        experts: Experts of a layer, 0 for a dense model.
        experts_used: Experts that a token uses.
    """

    layers: int
    blocks: int
    hidden: int
    vocab: int
    context: int
    heads: list[int]
    kv_heads: list[int]
    k_dim: int
    v_dim: int
    attention_scale: float
    eps: float
    experts: int
    experts_used: int


NEUTRAL: dict[str, tuple[float, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.shared_kv_layers": (0,),
    "attention.sliding_window": (0,),
    "attention.temperature_scale": (0,),
    "attention.value_scale": (0, 1),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_group_count": (0, 1),
    "final_logit_softcapping": (0,),
    "interleave_moe_layer_step": (0, 1),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_log_multiplier": (0,),
    "router_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
}
"""Keys that change the arithmetic of a decoder, with the values that don't."""


def read_hyper(gguf: GgufFile, *honours: str) -> Hyper:
    """Reads the common keys of a model file, or raises a `ModelError` that names the key.

    Args:
        gguf: The model.
        honours: The keys of `NEUTRAL` that the family reads; the others must be neutral or missing.
    """
    meta = gguf.hyper
    context = count(meta, "context_length", MAX_CONTEXT)
    _refuse_what_is_not_honoured(meta, honours, context)
    blocks = count(meta, "block_count", MAX_LAYERS)
    predictors = meta.u32("nextn_predict_layers", 0)
    if predictors >= blocks:
        meta.fail("nextn_predict_layers", f"{predictors} of {blocks} blocks leave no layer")
    hidden = count(meta, "embedding_length", MAX_WIDTH)
    heads = _per_layer(meta, "attention.head_count", blocks, MAX_HEADS)
    kv_heads = (
        _per_layer(meta, "attention.head_count_kv", blocks, MAX_HEADS)
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
    k_dim = _head_dim(meta, "attention.key_length", hidden, heads)
    return Hyper(
        layers=blocks - predictors,
        blocks=blocks,
        hidden=hidden,
        vocab=_vocabulary(gguf, hidden),
        context=context,
        heads=heads,
        kv_heads=kv_heads,
        k_dim=k_dim,
        v_dim=_head_dim(meta, "attention.value_length", hidden, heads),
        attention_scale=factor(meta, "attention.scale") or k_dim**-0.5,
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


def factor(meta: Metadata, key: str) -> float:
    """Returns a factor that is at least 0; 0, which means that there is none, if it is missing."""
    value = meta.f32(key, 0.0)
    if value < 0:
        meta.fail(key, f"expected at least 0 but got {value}")
    return value


def refuse_other(meta: Metadata, key: str, *values: float) -> None:
    """Raises a `ModelError` if a key that changes the arithmetic has another than these values."""
    if key in meta and (meta.is_array(key) or meta[key] not in values):
        meta.fail(
            key,
            f"expected {' or '.join(map(str, values))} but got {meta[key]}",
            hint="the model is a variant that this version does not support",
        )


def _refuse_what_is_not_honoured(meta: Metadata, honours: tuple[str, ...], context: int) -> None:
    for key, values in NEUTRAL.items():
        whole_context = key == "attention.sliding_window" and meta.int(key, 0) >= context
        if key not in honours and not whole_context:
            refuse_other(meta, key, *values)


def feed_forward(meta: Metadata, blocks: int, key: str = "feed_forward_length") -> list[int]:
    """Returns the inner width of the MLP, or of an expert, of each block.

    It is 0 where a file states an array and the block has no such part.
    """
    least = 0 if meta.is_array(key) else 1
    return _per_layer(meta, key, blocks, MAX_WIDTH, least)


def expert_widths(meta: Metadata, hyper: Hyper) -> list[int]:
    """Returns the inner width of an expert of each block.

    If the file does not say, the experts that a token uses are as wide together as a dense MLP.
    """
    key = "expert_feed_forward_length"
    if key in meta:
        return feed_forward(meta, hyper.blocks, key)
    return [width // hyper.experts_used for width in feed_forward(meta, hyper.blocks)]


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


def _per_layer(meta: Metadata, key: str, blocks: int, most: int, least: int = 1) -> list[int]:
    values = meta.per_layer(key, blocks, int)
    for value in values:
        if not least <= value <= most:
            meta.fail(key, f"expected {least} to {most} but got {value}")
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
