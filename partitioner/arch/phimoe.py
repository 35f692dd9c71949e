"""Phi-3.5-MoE and GRIN-MoE: layer norms, sparsemixer routing, longrope."""

from moesaic.partitioner.arch._attention import Attention, attention
from moesaic.partitioner.arch._blocks import add, embedding, finish, head, layer_norm
from moesaic.partitioner.arch._builder import Builder, Model
from moesaic.partitioner.arch._feed_forward import Mixture, mixture
from moesaic.partitioner.arch._hyper import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    Hyper,
    count,
    feed_forward,
    read_hyper,
    refuse_other,
)
from moesaic.partitioner.arch._rope import rope

# Constants of the original model that no metadata key holds: `short_mscale`, which `long_mscale`
# equals, and `router_jitter_noise`.
MSCALE = 1.243163121016122
ROUTER_EPS = 0.01


def build(b: Builder) -> Model:
    """Builds the graph. Without rope divisors in the file (GRIN-MoE), the rope is the plain one."""
    hyper = read_hyper(b.gguf, "attention.sliding_window")
    table = rope(b, hyper.k_dim, "neox", mscale=MSCALE)
    widths, window = feed_forward(b.hyper, hyper.blocks), _window(b, hyper)
    _refuse_other_routers(b)
    x = embedding(b, hyper.vocab, hyper.hidden)
    for i in range(hyper.layers):
        spec = Attention.of(
            hyper,
            i,
            table,
            window=window,
            bias="optional",
        )
        with b.layer(i):
            h = layer_norm(b, "attn_norm", x, "attn_norm", hyper.eps)
            x = add(b, "attn_residual", x, attention(b, i, h, spec))
            h = layer_norm(b, "ffn_norm", x, "ffn_norm", hyper.eps)
            x = add(b, "ffn_residual", x, mixture(b, i, h, _experts(b, widths[i])))
    logits = head(b, x, hyper, tied=True, bias="optional", normalise=layer_norm)
    return finish(b, logits, hyper)


def _experts(b: Builder, width: int) -> Mixture:
    return Mixture(
        experts=count(b.hyper, "expert_count", MAX_EXPERTS),
        used=2,
        width=width,
        gating="sparsemixer",
        renormalise=False,
        eps=ROUTER_EPS,
    )


def _window(b: Builder, hyper: Hyper) -> int:
    """Returns the window of all layers; the published one is the whole context, that is none."""
    window = count(b.hyper, "attention.sliding_window", MAX_CONTEXT, default=0)
    return window if window < hyper.context else 0


def _refuse_other_routers(b: Builder) -> None:
    """The original router picks two experts, whose weights nothing rescales."""
    refuse_other(b.hyper, "expert_used_count", 2)
    refuse_other(b.hyper, "expert_gating_func", 0)
    refuse_other(b.hyper, "expert_weights_norm", False)
    refuse_other(b.hyper, "expert_weights_scale", 0, 1)
