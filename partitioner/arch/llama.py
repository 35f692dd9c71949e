"""Llama and its relatives (Mistral, Yi, SmolLM, ...), and Mixtral, which has experts."""

import onnx_ir as ir

from moesaic.partitioner.arch._attention import Attention, attention
from moesaic.partitioner.arch._blocks import add, embedding, finish, head, norm
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._feed_forward import Mixture, mixture, mlp
from moesaic.partitioner.arch._hyper import Hyper, feed_forward, read_hyper, refuse_other
from moesaic.partitioner.arch._rope import Rope, rope


def build(b: Builder) -> Model:
    """Builds the graph; queries and keys are stored permuted, hence the interleaved rope."""
    hyper = read_hyper(b.gguf)
    table, widths = rope(b, hyper.k_dim, "norm"), feed_forward(b.hyper, hyper.layers)
    x = embedding(b, hyper.vocab, hyper.hidden)
    for i in range(hyper.layers):
        with b.layer(i):
            h = norm(b, "attn_norm", x, "attn_norm", hyper.eps)
            x = add(b, "attn_residual", x, attention(b, i, h, _attention(b, hyper, i, table)))
            h = norm(b, "ffn_norm", x, "ffn_norm", hyper.eps)
            x = add(b, "ffn_residual", x, _feed_forward(b, hyper, i, h, widths[i]))
    return finish(b, head(b, x, hyper, tied=True), hyper)


def _attention(b: Builder, hyper: Hyper, layer: int, table: Rope) -> Attention:
    return Attention(
        heads=hyper.heads[layer],
        kv_heads=hyper.kv_heads[layer],
        k_dim=hyper.k_dim,
        v_dim=hyper.v_dim,
        scale=b.hyper.f32("attention.scale", 0.0) or hyper.k_dim**-0.5,
        rope=table,
        bias="optional",
    )


def _feed_forward(b: Builder, hyper: Hyper, layer: int, x: ir.Value, width: int) -> ir.Value:
    if not hyper.experts:
        return mlp(b, x, width, bias="optional")
    refuse_other(b.hyper, "expert_gating_func", 0, 1)
    spec = Mixture(
        experts=hyper.experts,
        used=hyper.experts_used,
        width=width,
        gating="softmax",
        renormalise=True,
        scale=b.hyper.f32("expert_weights_scale", 0.0) or 1.0,
    )
    return mixture(b, layer, x, spec)
