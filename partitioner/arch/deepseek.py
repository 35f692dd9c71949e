"""DeepSeek-MoE, the first generation: shared experts, and dense layers before the others."""

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
    feed_forward,
    read_hyper,
)
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph; queries and keys are stored permuted, hence the interleaved rope."""
    hyper = read_hyper(b.gguf, "leading_dense_block_count")
    table = rope(b, hyper.k_dim, "norm")
    count(b.hyper, "expert_count", MAX_EXPERTS)
    widths = feed_forward(b.hyper, hyper.blocks, "expert_feed_forward_length")

    def half(i: int, x: ir.Value) -> ir.Value:
        if is_dense(b, i):
            return mlp(b, x, feed_forward(b.hyper, hyper.blocks)[i])
        spec = softmax_routing(b, hyper, widths[i], renormalise=False)
        return mixture(b, i, x, spec, Shared(_shared_width(b, hyper, widths[i])))

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table)

    return decoder(b, hyper, Decoder(attention, half))


def _shared_width(b: Builder, hyper: Hyper, width: int) -> int:
    """Returns the inner width of the shared experts, which files hold as one of their size."""
    shared = count(b.hyper, "expert_shared_count", MAX_EXPERTS)
    key = "expert_shared_feed_forward_length"
    return count(b.hyper, key, MAX_WIDTH, default=0) or shared * width
