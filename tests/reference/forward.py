"""An independent oracle: the logits of a GGUF model, in NumPy float64.

Written for reading, not for speed, and free of any project code: files are read with
``gguf.GGUFReader``, weights decoded with ``gguf.quants``, and every formula is spelled out here.
Whole sequences are teacher-forced: there is no cache. Tensors are decoded when a layer needs them,
experts when a token chose them, so models of a few gigabytes fit.

Shapes: n tokens, D model width, H query heads, G key/value heads, d head width, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reference.layers import (
    HEAD_ROWS,
    Array,
    Model,
    attention,
    clamped_swiglu,
    experts,
    gelu_gate,
    is_windowed,
    longrope_table,
    mlp,
    project,
    rope,
    rope_table,
    shared_expert,
    silu_gate,
    softmax_route,
    sparsemixer_route,
    whole_softmax_route,
)


def llama(m: Model, x: Array) -> Array:
    """Llama and Mixtral: q and k rows are stored permuted, so that the rotation is interleaved."""
    table = rope_table(m, m.hp("rope.freq_base", 10000.0))
    scale = m.hp("attention.scale", 0.0) or 1.0 / math.sqrt(m.heads[2])
    for i in range(m.hp("block_count")):
        p = f"blk.{i}"
        q, k, v = project(m, p, m.rms(f"{p}.attn_norm", x))
        q, k = rope(q, table, interleaved=True), rope(k, table, interleaved=True)
        x = x + m.linear(f"{p}.attn_output", attention(q, k, v, scale))
        h = m.rms(f"{p}.ffn_norm", x)
        feed_forward = experts if m.hp("expert_count", 0) else mlp
        x = x + feed_forward(m, p, h, silu_gate)
    return x


def gpt_oss(m: Model, x: Array) -> Array:
    """gpt-oss: sinks, windows on even layers, yarn without truncation, clamped activation."""
    table = rope_table(m, m.hp("rope.freq_base"), truncate=False)
    for i in range(m.hp("block_count")):
        p = f"blk.{i}"
        q, k, v = project(m, p, m.rms(f"{p}.attn_norm", x))
        q, k = rope(q, table, interleaved=False), rope(k, table, interleaved=False)
        window = m.hp("attention.sliding_window") if is_windowed(m, i, 2) else 0
        sinks = m.rows(f"{p}.attn_sinks.weight")
        a = attention(q, k, v, 1.0 / math.sqrt(m.heads[2]), window, sinks)
        x = x + m.linear(f"{p}.attn_output", a)
        x = x + experts(m, p, m.rms(f"{p}.post_attention_norm", x), clamped_swiglu)
    return x


def gemma3(m: Model, x: Array) -> Array:
    """Gemma 3: scaled embedding, q/k norms, norms after both halves, two rotary bases."""
    width, (h, _, d) = m.hp("embedding_length"), m.heads
    full = rope_table(m, m.hp("rope.freq_base", 1e6))
    local = rope_table(m, m.hp("rope.freq_base_swa", 1e4), scaled=False)
    layers = m.hp("block_count")
    # The 27B model scales by the width per query head; no key says so, only its 62 layers.
    scale = 1.0 / math.sqrt(width / h if layers == 62 else d)
    x = x * math.sqrt(width)
    for i in range(layers):
        p = f"blk.{i}"
        q, k, v = project(m, p, m.rms(f"{p}.attn_norm", x))
        q, k = m.rms(f"{p}.attn_q_norm", q), m.rms(f"{p}.attn_k_norm", k)
        windowed = is_windowed(m, i, 6)
        table = local if windowed else full
        q, k = rope(q, table, interleaved=False), rope(k, table, interleaved=False)
        a = attention(q, k, v, scale, m.hp("attention.sliding_window", 0) if windowed else 0)
        x = x + m.rms(f"{p}.post_attention_norm", m.linear(f"{p}.attn_output", a))
        f = mlp(m, p, m.rms(f"{p}.ffn_norm", x), gelu_gate)
        x = x + m.rms(f"{p}.post_ffw_norm", f)
    return x


def phimoe(m: Model, x: Array) -> Array:
    """Phi-3.5-MoE: layer norms, biases on projections, longrope, sparsemixer."""
    table = longrope_table(m, len(x), 1.243163121016122)
    for i in range(m.hp("block_count")):
        p = f"blk.{i}"
        q, k, v = project(m, p, m.layer_norm(f"{p}.attn_norm", x))
        q, k = rope(q, table, interleaved=False), rope(k, table, interleaved=False)
        a = attention(q, k, v, 1.0 / math.sqrt(m.heads[2]))
        x = x + m.linear(f"{p}.attn_output", a)
        h = m.layer_norm(f"{p}.ffn_norm", x)
        x = x + experts(m, p, h, silu_gate, sparsemixer_route)
    return x


def mixture(m: Model, prefix: str, x: Array, *, normalise: bool) -> Array:
    """Experts that a softmax over all of them chose, and the shared one; or a layer's plain MLP.

    The file may say otherwise than ``normalise`` whether weights are divided by their sum.
    """
    if f"{prefix}.ffn_gate_inp.weight" not in m.tensors:
        return mlp(m, prefix, x, silu_gate)
    summed = m.hp("expert_weights_norm", normalise)
    y = experts(m, prefix, x, silu_gate, softmax_route if summed else whole_softmax_route)
    y = y * (m.hp("expert_weights_scale", 0.0) or 1.0)
    if f"{prefix}.ffn_up_shexp.weight" in m.tensors:
        y = y + shared_expert(m, prefix, x, silu_gate)
    return y


def per_head_norms(m: Model, prefix: str, q: Array, k: Array) -> tuple[Array, Array]:
    return m.rms(f"{prefix}.attn_q_norm", q), m.rms(f"{prefix}.attn_k_norm", k)


def whole_norms(m: Model, prefix: str, q: Array, k: Array) -> tuple[Array, Array]:
    whole_q, whole_k = per_head_norms(m, prefix, q.reshape(len(q), -1), k.reshape(len(k), -1))
    return whole_q.reshape(q.shape), whole_k.reshape(k.shape)


def standard(
    m: Model,
    x: Array,
    *,
    interleaved: bool,
    norms: Callable[[Model, str, Array, Array], tuple[Array, Array]] | None = None,
    normalise: bool = False,
    residual: float = 1.0,
) -> Array:
    """Layers of attention and feed-forward, each behind an RMS norm."""
    table = rope_table(m, m.hp("rope.freq_base", 10000.0))
    scale = m.hp("attention.scale", 0.0) or 1.0 / math.sqrt(m.heads[2])
    for i in range(m.hp("block_count")):
        p = f"blk.{i}"
        q, k, v = project(m, p, m.rms(f"{p}.attn_norm", x))
        if norms:
            q, k = norms(m, p, q, k)
        q, k = rope(q, table, interleaved=interleaved), rope(k, table, interleaved=interleaved)
        x = x + residual * m.linear(f"{p}.attn_output", attention(q, k, v, scale))
        x = x + residual * mixture(m, p, m.rms(f"{p}.ffn_norm", x), normalise=normalise)
    return x


def deepseek(m: Model, x: Array) -> Array:
    """DeepSeek-MoE: the first layers are dense; q and k rows are stored permuted."""
    for i in range(m.hp("block_count")):
        assert (i < m.hp("leading_dense_block_count")) == (f"blk.{i}.ffn_up.weight" in m.tensors)
    return standard(m, x, interleaved=True)


def qwen2(m: Model, x: Array) -> Array:
    """Qwen 2, and Qwen2-MoE with its gated shared expert."""
    return standard(m, x, interleaved=False)


def qwen3(m: Model, x: Array) -> Array:
    """Qwen 3 and Qwen3-MoE: norms of each head; expert weights are normalised."""
    return standard(m, x, interleaved=False, norms=per_head_norms, normalise=True)


def olmoe(m: Model, x: Array) -> Array:
    """OLMoE: norms over all heads together."""
    return standard(m, x, interleaved=False, norms=whole_norms)


def granite(m: Model, x: Array) -> Array:
    """Granite, dense and with experts: multipliers on embedding and residuals."""
    x = x * (m.hp("embedding_scale", 0.0) or 1.0)
    residual = m.hp("residual_scale", 0.0) or 1.0
    return standard(m, x, interleaved=True, normalise=True, residual=residual)


FAMILIES: dict[str, Callable[[Model, Array], Array]] = {
    "llama": llama,
    "gpt-oss": gpt_oss,
    "gemma3": gemma3,
    "phimoe": phimoe,
    "deepseek": deepseek,
    "qwen2": qwen2,
    "qwen2moe": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3,
    "olmoe": olmoe,
    "granite": granite,
    "granitemoe": granite,
}


def head(m: Model, x: Array) -> Array:
    """Logits [n, V] of final hidden states; a file without ``output.weight`` ties the head."""
    layer_norm = "output_norm.bias" in m.tensors
    x = m.layer_norm("output_norm", x) if layer_norm else m.rms("output_norm", x)
    name = "output.weight" if "output.weight" in m.tensors else "token_embd.weight"
    vocab = len(m.tensors[name].data)
    parts = [x @ m.rows(name, slice(r, r + HEAD_ROWS)).T for r in range(0, vocab, HEAD_ROWS)]
    y = np.concatenate(parts, axis=1)
    bias = m.maybe("output.bias")
    cap = m.hp("final_logit_softcapping", 0.0)
    y = (y if bias is None else y + bias) / (m.hp("logit_scale", 0.0) or 1.0)
    return cap * np.tanh(y / cap) if cap else y


def logits(path: str | Path, tokens: Any) -> Array:
    """Float64 logits [n, V] of every position of one sequence of token ids."""
    m = Model(path)
    x = m.rows("token_embd.weight", np.asarray(tokens, dtype=np.int64))
    return head(m, FAMILIES[m.arch](m, x))
