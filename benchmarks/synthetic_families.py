"""Tensors and metadata of the model families, as published files have them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import synthetic_vocabulary as vocabulary
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, RopeScalingType
from synthetic_base import Model, Tensor, bias, common_metadata, ends, matrix, norm

# Parts that several have -------------------------------------------------------------------------


def experts(m: Model, layer: str, kind: Type, down: Type | None = None) -> Iterator[Tensor]:
    """Three stacks of matrices; `down` is the type of the last if it differs."""
    yield matrix(f"{layer}.ffn_gate_exps.weight", m.ff, m.width, kind, m.experts)
    yield matrix(f"{layer}.ffn_up_exps.weight", m.ff, m.width, kind, m.experts)
    yield matrix(f"{layer}.ffn_down_exps.weight", m.width, m.ff, down or kind, m.experts)


def mlp(m: Model, layer: str, suffix: str, ff: int, kind: Type) -> Iterator[Tensor]:
    """A gated MLP, dense or shared."""
    yield matrix(f"{layer}.ffn_gate{suffix}.weight", ff, m.width, kind)
    yield matrix(f"{layer}.ffn_up{suffix}.weight", ff, m.width, kind)
    yield matrix(f"{layer}.ffn_down{suffix}.weight", m.width, ff, kind)


def wants_more_bits(layer: int, layers: int) -> bool:
    """The layers to which a K_M mix gives Q6_K: both ends, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


# gpt-oss: experts MXFP4, the rest Q8_0 or F16 ----------------------------------------------------

HARMONY = {
    "startoftext": 199998,
    "endoftext": 199999,
    "return": 200002,
    "constrain": 200003,
    "channel": 200005,
    "start": 200006,
    "end": 200007,
    "message": 200008,
    "call": 200012,
    "endofprompt": 200018,
}
HARMONY_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def gpt_oss_tensors(m: Model, dense: Type = Type.Q8_0) -> Iterator[Tensor]:
    """19 tensors a layer and three more; `dense` is the type of attention, embedding and head."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, last_norm, head = ends(m, dense, dense)
    yield embedding
    for i in range(m.layers):
        p = f"blk.{i}"
        yield norm(f"{p}.attn_norm.weight", m.width)
        for name, rows, columns in (
            ("attn_q", q, m.width),
            ("attn_k", kv, m.width),
            ("attn_v", kv, m.width),
            ("attn_output", m.width, q),
        ):
            yield matrix(f"{p}.{name}.weight", rows, columns, dense)
            yield bias(f"{p}.{name}.bias", rows)
        yield Tensor(f"{p}.attn_sinks.weight", (m.heads,), Type.F32, 1.0)
        yield norm(f"{p}.post_attention_norm.weight", m.width)
        yield matrix(f"{p}.ffn_gate_inp.weight", m.experts, m.width, Type.F32)
        yield bias(f"{p}.ffn_gate_inp.bias", m.experts)
        for name, rows, columns in (
            ("ffn_gate_exps", m.ff, m.width),
            ("ffn_up_exps", m.ff, m.width),
            ("ffn_down_exps", m.width, m.ff),
        ):
            yield matrix(f"{p}.{name}.weight", rows, columns, Type.MXFP4, m.experts)
            yield bias(f"{p}.{name}.bias", m.experts, rows)
    yield last_norm
    yield head


def gpt_oss_metadata(w: GGUFWriter, m: Model) -> None:
    """Window, yarn, harmony tokenizer."""
    common_metadata(w, m)
    w.add_expert_feed_forward_length(m.ff)
    w.add_sliding_window(128)
    w.add_rope_scaling_type(RopeScalingType.YARN)
    w.add_rope_scaling_factor(32.0)
    w.add_rope_scaling_orig_ctx_len(4096)
    w.add_rope_scaling_yarn_beta_fast(32.0)
    w.add_rope_scaling_yarn_beta_slow(1.0)
    shift = min(0, m.vocab - 201088)  # a cut vocabulary keeps the specials, at lower ids
    names = {i + shift: f"<|{name}|>" for name, i in HARMONY.items()}
    reserved = range(199998 + shift, 200019 + shift)
    specials = {i: names.get(i, f"<|reserved_{i}|>") for i in reserved}
    vocabulary.byte_level(w, m.vocab, "gpt-4o", 199998 + shift, specials)
    w.add_bos_token_id(HARMONY["startoftext"] + shift)
    w.add_eos_token_id(HARMONY["return"] + shift)
    w.add_pad_token_id(HARMONY["endoftext"] + shift)
    w.add_chat_template(HARMONY_TEMPLATE)


# Mixtral in Q4_K_M -------------------------------------------------------------------------------


def mixtral_tensors(m: Model) -> Iterator[Tensor]:
    """Ten tensors a layer and three more; the mix that eight experts get in Q4_K_M files."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, last_norm, head = ends(m, Type.Q4_K, Type.Q6_K)
    yield embedding
    for i in range(m.layers):
        p = f"blk.{i}"
        down = Type.Q6_K if wants_more_bits(i, m.of_layers) else Type.Q4_K
        yield norm(f"{p}.attn_norm.weight", m.width)
        yield matrix(f"{p}.attn_q.weight", q, m.width, Type.Q4_K)
        yield matrix(f"{p}.attn_k.weight", kv, m.width, Type.Q8_0)
        yield matrix(f"{p}.attn_v.weight", kv, m.width, Type.Q8_0)
        yield matrix(f"{p}.attn_output.weight", m.width, q, Type.Q5_K)
        yield norm(f"{p}.ffn_norm.weight", m.width)
        yield matrix(f"{p}.ffn_gate_inp.weight", m.experts, m.width, Type.F32)
        yield from experts(m, p, Type.Q4_K, down)
    yield last_norm
    yield head


def mixtral_metadata(w: GGUFWriter, m: Model) -> None:
    """Llama keys and an SPM tokenizer."""
    common_metadata(w, m)
    w.add_vocab_size(m.vocab)
    w.add_rope_dimension_count(m.head_dim)
    vocabulary.sentencepiece(w, m.vocab)


# Phi-3.5-MoE in F16 ------------------------------------------------------------------------------


def layer_norm(name: str, width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a LayerNorm."""
    return norm(f"{name}.weight", width), bias(f"{name}.bias", width)


def phimoe_tensors(m: Model) -> Iterator[Tensor]:
    """16 tensors a layer and seven more."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, _, head = ends(m, Type.F16, Type.F16)
    yield embedding
    for length, divisor in (("long", 8.0), ("short", 1.1)):
        yield Tensor(f"rope_factors_{length}.weight", (m.head_dim // 2,), Type.F32, 0.01, divisor)
    for i in range(m.layers):
        p = f"blk.{i}"
        yield from layer_norm(f"{p}.attn_norm", m.width)
        for name, rows, columns in (
            ("attn_q", q, m.width),
            ("attn_k", kv, m.width),
            ("attn_v", kv, m.width),
            ("attn_output", m.width, q),
        ):
            yield matrix(f"{p}.{name}.weight", rows, columns, Type.F16)
            yield bias(f"{p}.{name}.bias", rows)
        yield from layer_norm(f"{p}.ffn_norm", m.width)
        yield matrix(f"{p}.ffn_gate_inp.weight", m.experts, m.width, Type.F32)
        yield from experts(m, p, Type.F16)
    yield from layer_norm("output_norm", m.width)
    yield head
    yield bias("output.bias", m.vocab)


def phimoe_metadata(w: GGUFWriter, m: Model) -> None:
    """Longrope over 4096 trained tokens, and an SPM tokenizer."""
    common_metadata(w, m)
    w.add_rope_dimension_count(m.head_dim)
    w.add_sliding_window(131072)
    w.add_rope_scaling_orig_ctx_len(4096)
    w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(m.context / 4096) / math.log(4096)))
    vocabulary.sentencepiece(w, m.vocab)


# DeepSeek-MoE-16B in F16 -------------------------------------------------------------------------

DEEPSEEK_DENSE_FF, DEEPSEEK_SHARED = 10944, 2


def deepseek_tensors(m: Model) -> Iterator[Tensor]:
    """A dense first layer, then experts beside a shared MLP."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, last_norm, head = ends(m, Type.F16, Type.F16)
    yield embedding
    for i in range(m.layers):
        p = f"blk.{i}"
        yield norm(f"{p}.attn_norm.weight", m.width)
        yield matrix(f"{p}.attn_q.weight", q, m.width, Type.F16)
        yield matrix(f"{p}.attn_k.weight", kv, m.width, Type.F16)
        yield matrix(f"{p}.attn_v.weight", kv, m.width, Type.F16)
        yield matrix(f"{p}.attn_output.weight", m.width, q, Type.F16)
        yield norm(f"{p}.ffn_norm.weight", m.width)
        if i == 0:
            yield from mlp(m, p, "", DEEPSEEK_DENSE_FF, Type.F16)
            continue
        yield matrix(f"{p}.ffn_gate_inp.weight", m.experts, m.width, Type.F32)
        yield from experts(m, p, Type.F16)
        yield from mlp(m, p, "_shexp", DEEPSEEK_SHARED * m.ff, Type.F16)
    yield last_norm
    yield head


def deepseek_metadata(w: GGUFWriter, m: Model) -> None:
    """Keys of shared experts, and a byte-level tokenizer."""
    common_metadata(w, m, DEEPSEEK_DENSE_FF)
    w.add_expert_feed_forward_length(m.ff)
    w.add_leading_dense_block_count(1)
    w.add_expert_shared_count(DEEPSEEK_SHARED)
    w.add_expert_weights_scale(1.0)
    w.add_rope_dimension_count(m.head_dim)
    w.add_rope_scaling_type(RopeScalingType.NONE)
    w.add_vocab_size(m.vocab)
    vocabulary.byte_level(
        w, m.vocab, "deepseek-llm", m.vocab - 2, {m.vocab - 2: "<s>", m.vocab - 1: "</s>"}
    )
    w.add_bos_token_id(m.vocab - 2)
    w.add_eos_token_id(m.vocab - 1)


# Qwen3-30B-A3B in Q4_K_M -------------------------------------------------------------------------


def qwen3moe_tensors(m: Model) -> Iterator[Tensor]:
    """Twelve tensors a layer and three more."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, last_norm, head = ends(m, Type.Q4_K, Type.Q6_K)
    yield embedding
    for i in range(m.layers):
        p = f"blk.{i}"
        more = Type.Q6_K if wants_more_bits(i, m.of_layers) else Type.Q4_K
        yield norm(f"{p}.attn_norm.weight", m.width)
        yield matrix(f"{p}.attn_q.weight", q, m.width, Type.Q4_K)
        yield matrix(f"{p}.attn_k.weight", kv, m.width, Type.Q4_K)
        yield matrix(f"{p}.attn_v.weight", kv, m.width, more)
        yield norm(f"{p}.attn_q_norm.weight", m.head_dim)
        yield norm(f"{p}.attn_k_norm.weight", m.head_dim)
        yield matrix(f"{p}.attn_output.weight", m.width, q, Type.Q4_K)
        yield norm(f"{p}.ffn_norm.weight", m.width)
        yield matrix(f"{p}.ffn_gate_inp.weight", m.experts, m.width, Type.F32)
        yield from experts(m, p, Type.Q4_K, more)
    yield last_norm
    yield head


def qwen3moe_metadata(w: GGUFWriter, m: Model) -> None:
    """Expert width, and a byte-level tokenizer."""
    common_metadata(w, m, 6144)  # of which there are none
    w.add_expert_feed_forward_length(m.ff)
    specials = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}
    shift = min(0, m.vocab - 151936)
    specials = {i + shift: text for i, text in specials.items()}
    vocabulary.byte_level(w, m.vocab, "qwen2", 151643 + shift, specials)
    w.add_eos_token_id(151645 + shift)
