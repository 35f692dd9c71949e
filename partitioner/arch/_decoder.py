"""The decoder that most families are: two halves a layer, each behind a norm and added."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention, attention
from moesaic.partitioner.arch._blocks import add, embedding, finish, head, norm, scale
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._hyper import Hyper, count


@dataclass(frozen=True, slots=True)
class Decoder:
    """What distinguishes one such decoder from another.

    Attributes:
        attention: Returns the attention of a layer.
        feed_forward: Adds the feed-forward half of a layer to its input.
        tied: Whether the embedding is the head if the file has no `output.weight`.
        embedding_scale: Factor on the embedding.
        residual_scale: Factor on what a half adds.
        logit_scale: What divides the logits.
    """

    attention: Callable[[int], Attention]
    feed_forward: Callable[[int, ir.Value], ir.Value]
    tied: bool = True
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0


def decoder(b: Builder, hyper: Hyper, spec: Decoder) -> Model:
    """Builds the graph."""
    x = embedding(b, hyper.vocab, hyper.hidden)
    if spec.embedding_scale != 1:
        x = scale(b, "embed_scale", x, spec.embedding_scale)
    for i in range(hyper.layers):
        with b.layer(i):
            h = norm(b, "attn_norm", x, "attn_norm", hyper.eps)
            h = attention(b, i, h, spec.attention(i))
            x = _residual(b, "attn", x, h, spec.residual_scale)
            h = spec.feed_forward(i, norm(b, "ffn_norm", x, "ffn_norm", hyper.eps))
            x = _residual(b, "ffn", x, h, spec.residual_scale)
    logits = head(b, x, hyper, tied=spec.tied, logit_scale=spec.logit_scale)
    return finish(b, logits, hyper)


def is_dense(b: Builder, layer: int) -> bool:
    """Tells whether the current layer, of a model with experts, has a plain MLP instead.

    The layer's tensors say so; the key `leading_dense_block_count`, where there is one, must agree.
    """
    dense = b.weights.has("ffn_gate.weight") and not b.weights.has("ffn_gate_inp.weight")
    key = "leading_dense_block_count"
    leading = count(b.hyper, key, 1 << 16, default=0)
    if layer < leading and not dense:
        b.hyper.fail(key, f"is {leading}, but layer {layer} has experts")
    return dense


def _residual(b: Builder, half: str, x: ir.Value, h: ir.Value, factor: float) -> ir.Value:
    if factor != 1:
        h = scale(b, f"{half}_scale", h, factor)
    return add(b, f"{half}_residual", x, h)
