"""Qwen 3: dense, with norms of each query and key head."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder
from moesaic.partitioner.arch._feed_forward import mlp
from moesaic.partitioner.arch._hyper import feed_forward, read_hyper
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph."""
    hyper = read_hyper(b.gguf)
    table, widths = rope(b, hyper.k_dim, "neox"), feed_forward(b.hyper, hyper.blocks)

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional", norm_eps=hyper.eps)

    def half(i: int, x: ir.Value) -> ir.Value:
        return mlp(b, x, widths[i])

    return decoder(b, hyper, Decoder(attention, half))
