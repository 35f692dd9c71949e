"""Gemma 3 (text): norms on both sides of each block, windows on five layers of six."""

from moesaic.partitioner.arch._attention import Attention, attention
from moesaic.partitioner.arch._blocks import add, embedding, finish, head, norm, scale
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._feed_forward import Activation, mlp
from moesaic.partitioner.arch._hyper import (
    MAX_CONTEXT,
    Hyper,
    count,
    feed_forward,
    read_hyper,
    windowed_layers,
)
from moesaic.partitioner.arch._rope import Rope, base, frequencies, rope, rotary_dims

WINDOW_PERIOD = 6
LAYERS_OF_27B = 62
GELU = Activation("gelu_tanh")


def build(b: Builder) -> Model:
    """Builds the graph; windowed layers rotate with a base of their own and are never scaled."""
    hyper = read_hyper(b.gguf, "attention.sliding_window", "final_logit_softcapping")
    full, local = rope(b, hyper.k_dim, "neox", theta=1e6), _local_rope(b, hyper)
    window = count(b.hyper, "attention.sliding_window", MAX_CONTEXT)
    windowed = windowed_layers(b.hyper, hyper.layers, WINDOW_PERIOD)
    widths = feed_forward(b.hyper, hyper.blocks)
    x = scale(b, "embed_scale", embedding(b, hyper.vocab, hyper.hidden), hyper.hidden**0.5)
    for i in range(hyper.layers):
        spec = Attention(
            heads=hyper.heads[i],
            kv_heads=hyper.kv_heads[i],
            k_dim=hyper.k_dim,
            v_dim=hyper.v_dim,
            scale=_attention_scale(b, hyper),
            rope=local if windowed[i] else full,
            window=window if windowed[i] else 0,
            norm_eps=hyper.eps,
        )
        with b.layer(i):
            h = norm(b, "attn_norm", x, "attn_norm", hyper.eps)
            h = attention(b, i, h, spec)
            h = norm(b, "post_attn_norm", h, "post_attention_norm", hyper.eps)
            x = add(b, "attn_residual", x, h)
            h = norm(b, "ffn_norm", x, "ffn_norm", hyper.eps)
            h = mlp(b, h, widths[i], activation=GELU)
            h = norm(b, "post_ffn_norm", h, "post_ffw_norm", hyper.eps)
            x = add(b, "ffn_residual", x, h)
    softcap = b.hyper.f32("final_logit_softcapping", 0.0)
    return finish(b, head(b, x, hyper, tied=True, softcap=softcap), hyper)


def _local_rope(b: Builder, hyper: Hyper) -> Rope:
    dims = rotary_dims(b.hyper, hyper.k_dim)
    freqs = frequencies(base(b.hyper, "rope.freq_base_swa"), dims)
    return Rope(b.weights.computed("rope.inv_freq_swa", freqs), dims, "neox", 1.0)


def _attention_scale(b: Builder, hyper: Hyper) -> float:
    """Returns the factor on the scores; the 27B model divides the width by its heads instead."""
    stated = b.hyper.f32("attention.scale", 0.0)
    if hyper.layers == LAYERS_OF_27B:
        return stated or (hyper.hidden / hyper.heads[0]) ** -0.5
    return stated or hyper.k_dim**-0.5
