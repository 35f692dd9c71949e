"""Qwen1.5-MoE and Qwen2-57B-A14B: a shared expert behind a gate of its own."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder, is_dense
from moesaic.partitioner.arch._feed_forward import Shared, mixture, mlp, softmax_routing
from moesaic.partitioner.arch._hyper import (
    MAX_EXPERTS,
    MAX_WIDTH,
    Hyper,
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
        spec = softmax_routing(b, hyper, widths[i], renormalise=False)
        return mixture(b, i, x, spec, Shared(_shared_width(b, hyper, i), gated=True))

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional")

    return decoder(b, hyper, Decoder(attention, half))


def _shared_width(b: Builder, hyper: Hyper, layer: int) -> int:
    """Returns the inner width of the shared expert, by default that of a dense MLP."""
    width = count(b.hyper, "expert_shared_feed_forward_length", MAX_WIDTH, default=0)
    return width or feed_forward(b.hyper, hyper.blocks)[layer]
