"""Llama and its relatives (Mistral, Yi, SmolLM, ...), and Mixtral, which has experts."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder, is_dense
from moesaic.partitioner.arch._feed_forward import Shared, mixture, mlp, softmax_routing
from moesaic.partitioner.arch._hyper import MAX_WIDTH, count, feed_forward, read_hyper
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph; queries and keys are stored permuted, hence the interleaved rope."""
    hyper = read_hyper(b.gguf, "leading_dense_block_count")
    table, widths = rope(b, hyper.k_dim, "norm"), feed_forward(b.hyper, hyper.blocks)
    common = count(b.hyper, "expert_shared_feed_forward_length", MAX_WIDTH, default=0)

    def half(i: int, x: ir.Value) -> ir.Value:
        if not hyper.experts or is_dense(b, i):
            return mlp(b, x, widths[i], bias="optional")
        spec = softmax_routing(b, hyper, widths[i], renormalise=True)
        return mixture(b, i, x, spec, Shared(common) if common else None)

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional")

    return decoder(b, hyper, Decoder(attention, half))
