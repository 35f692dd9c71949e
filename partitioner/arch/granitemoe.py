"""Granite 3 with experts, and with a shared one: multipliers on embedding, halves and logits."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._decoder import Decoder, decoder
from moesaic.partitioner.arch._feed_forward import Shared, mixture, mlp, softmax_routing
from moesaic.partitioner.arch._hyper import MAX_WIDTH, count, factor, feed_forward, read_hyper
from moesaic.partitioner.arch._rope import rope


def build(b: Builder) -> Model:
    """Builds the graph; queries and keys are stored permuted, hence the interleaved rope.

    The router's softmax over the chosen equals the one over all experts divided by the chosen's
    sum.
    """
    hyper = read_hyper(b.gguf, "embedding_scale", "residual_scale", "logit_scale")
    table, widths = rope(b, hyper.k_dim, "norm"), feed_forward(b.hyper, hyper.blocks)
    common = count(b.hyper, "expert_shared_feed_forward_length", MAX_WIDTH, default=0)
    b.hyper.f32("logit_scale")  # required

    def half(i: int, x: ir.Value) -> ir.Value:
        if not hyper.experts:
            return mlp(b, x, widths[i], bias="optional")
        spec = softmax_routing(b, hyper, widths[i], renormalise=True)
        return mixture(b, i, x, spec, Shared(common) if common else None)

    def attention(i: int) -> Attention:
        return Attention.of(hyper, i, table, bias="optional")

    spec = Decoder(
        attention,
        half,
        embedding_scale=factor(b.hyper, "embedding_scale") or 1.0,
        residual_scale=factor(b.hyper, "residual_scale") or 1.0,
        logit_scale=factor(b.hyper, "logit_scale") or 1.0,
    )
    return decoder(b, hyper, spec)
