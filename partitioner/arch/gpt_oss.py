"""gpt-oss: experts with biases and a clamped swiglu, attention sinks, alternating windows."""

from moesaic.partitioner.arch._attention import Attention, attention
from moesaic.partitioner.arch._blocks import add, embedding, finish, head, norm
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._feed_forward import Activation, Mixture, mixture
from moesaic.partitioner.arch._hyper import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_WIDTH,
    count,
    read_hyper,
    refuse_other,
    windowed_layers,
)
from moesaic.partitioner.arch._rope import base, rope

# Constants of the original model that no metadata key holds.
ACTIVATION = Activation("swiglu_clamped", alpha=1.702, limit=7.0)
WINDOW_PERIOD = 2


def build(b: Builder) -> Model:
    """Builds the graph; the ends of yarn's ramp are not rounded in the original model."""
    hyper = read_hyper(b.gguf, "attention.sliding_window")
    table = rope(b, hyper.k_dim, "neox", truncate=False)
    refuse_other(b.hyper, "expert_gating_func", 0, 3)
    refuse_other(b.hyper, "expert_weights_scale", 0, 1)
    refuse_other(b.hyper, "rope.freq_base_swa", base(b.hyper, "rope.freq_base"))
    window = count(b.hyper, "attention.sliding_window", MAX_CONTEXT)
    windowed = windowed_layers(b.hyper, hyper.layers, WINDOW_PERIOD)
    experts = Mixture(
        experts=count(b.hyper, "expert_count", MAX_EXPERTS),
        used=hyper.experts_used,
        width=count(b.hyper, "expert_feed_forward_length", MAX_WIDTH),
        gating="softmax_selected",
        renormalise=False,
        bias="required",
        activation=ACTIVATION,
    )
    x = embedding(b, hyper.vocab, hyper.hidden)
    for i in range(hyper.layers):
        spec = Attention.of(
            hyper,
            i,
            table,
            window=window if windowed[i] else 0,
            bias="required",
            sinks=True,
        )
        with b.layer(i):
            h = norm(b, "attn_norm", x, "attn_norm", hyper.eps)
            x = add(b, "attn_residual", x, attention(b, i, h, spec))
            h = norm(b, "ffn_norm", x, "post_attention_norm", hyper.eps)
            x = add(b, "ffn_residual", x, mixture(b, i, h, experts))
    return finish(b, head(b, x, hyper, tied=False), hyper)
