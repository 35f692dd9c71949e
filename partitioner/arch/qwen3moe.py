"""Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder: norms of each head, no shared expert."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder, is_dense
from moesaic.partitioner.arch._feed_forward import mixture, mlp, softmax_routing
from moesaic.partitioner.arch._hyper import (
    MAX_EXPERTS,
    count,
    expert_widths,
    feed_forward,
    read_hyper,
)
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph; layers without a router are dense."""
    hyper = read_hyper(b.gguf, "leading_dense_block_count")
    count(b.hyper, "expert_count", MAX_EXPERTS)
    table, widths = rope(b, hyper.k_dim, "neox"), expert_widths(b.hyper, hyper)

    def half(i: int, x: ir.Value) -> ir.Value:
        if is_dense(b, i):
            return mlp(b, x, feed_forward(b.hyper, hyper.blocks)[i])
        return mixture(b, i, x, softmax_routing(b, hyper, widths[i], renormalise=True))

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional", norm_eps=hyper.eps)

    return decoder(b, hyper, Decoder(attention, half))
