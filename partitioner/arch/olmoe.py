"""OLMoE: norms over all query heads and over all key heads, weights that need not sum to 1."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder
from moesaic.partitioner.arch._feed_forward import mixture, softmax_routing
from moesaic.partitioner.arch._hyper import MAX_EXPERTS, count, feed_forward, read_hyper
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph."""
    hyper = read_hyper(b.gguf)
    table, widths = rope(b, hyper.k_dim, "neox"), feed_forward(b.hyper, hyper.blocks)
    count(b.hyper, "expert_count", MAX_EXPERTS)

    def half(i: int, x: ir.Value) -> ir.Value:
        return mixture(b, i, x, softmax_routing(b, hyper, widths[i], renormalise=False))

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional", norm_eps=hyper.eps, norm_whole=True)

    return decoder(b, hyper, Decoder(attention, half))
