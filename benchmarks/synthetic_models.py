"""The models whose shapes, types and metadata are known; one function and one row for each.

Sizes and keys are those of the published files, weights are random. ``Tensor.sigma`` is the spread
of the weights, chosen so that activations keep their size from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import synthetic_vocabulary as vocabulary
from gguf import GGML_QUANT_SIZES, GGUFWriter, LlamaFileType, RopeScalingType
from gguf import GGMLQuantizationType as Type


@dataclass(frozen=True)
class Tensor:
    """One tensor: numpy shape (columns last), type, spread and mean of its values."""

    name: str
    shape: tuple[int, ...]
    kind: Type
    sigma: float
    mean: float = 0.0

    @property
    def bytes(self) -> int:
        """Size in the file, without alignment."""
        values, size = GGML_QUANT_SIZES[self.kind]
        return int(math.prod(self.shape) // values * size)


@dataclass(frozen=True)
class Model:
    """Sizes of one model; ``layers`` may be cut, ``of_layers`` is what types are chosen by."""

    name: str
    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    experts: int
    used: int
    vocab: int
    context: int
    theta: float
    file_type: LlamaFileType
    tensors: Callable[[Model], Iterator[Tensor]]
    metadata: Callable[[GGUFWriter, Model], None]
    of_layers: int


def matrix(name: str, rows: int, columns: int, kind: Type, *stack: int) -> Tensor:
    """A weight, or a stack of them, that keeps the size of what it multiplies."""
    return Tensor(name, (*stack, rows, columns), kind, round(1 / math.sqrt(columns), 5))


def norm(name: str, width: int) -> Tensor:
    """Weights of a norm, around 1."""
    return Tensor(name, (width,), Type.F32, 0.1, 1.0)


def bias(name: str, *shape: int) -> Tensor:
    """A small bias."""
    return Tensor(name, shape, Type.F32, 0.05)


def ends(m: Model, embedding: Type, head: Type) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding, last norm, and a head whose logits have a spread of about 3."""
    return (
        Tensor("token_embd.weight", (m.vocab, m.width), embedding, 1.0),
        norm("output_norm.weight", m.width),
        Tensor("output.weight", (m.vocab, m.width), head, round(3 / math.sqrt(m.width), 5)),
    )


def common_metadata(w: GGUFWriter, m: Model) -> None:
    """The keys that every model has."""
    w.add_name(f"synthetic {m.name}")
    w.add_file_type(m.file_type)
    w.add_quantization_version(2)
    w.add_block_count(m.layers)
    w.add_context_length(m.context)
    w.add_embedding_length(m.width)
    w.add_feed_forward_length(m.ff)
    w.add_head_count(m.heads)
    w.add_head_count_kv(m.kv_heads)
    w.add_rope_freq_base(m.theta)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_expert_count(m.experts)
    w.add_expert_used_count(m.used)
    w.add_key_length(m.head_dim)
    w.add_value_length(m.head_dim)


# gpt-oss: experts MXFP4, the rest Q8_0 -----------------------------------------------------------

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


def gpt_oss_tensors(m: Model) -> Iterator[Tensor]:
    """19 tensors a layer and three more."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    embedding, last_norm, head = ends(m, Type.Q8_0, Type.Q8_0)
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
            yield matrix(f"{p}.{name}.weight", rows, columns, Type.Q8_0)
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


# Mixtral in Q4_K_M ------------------------------------------------------------------------------


def wants_more_bits(layer: int, layers: int) -> bool:
    """The layers to which a K_M mix gives Q6_K: both ends, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


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
        yield matrix(f"{p}.ffn_gate_exps.weight", m.ff, m.width, Type.Q4_K, m.experts)
        yield matrix(f"{p}.ffn_up_exps.weight", m.ff, m.width, Type.Q4_K, m.experts)
        yield matrix(f"{p}.ffn_down_exps.weight", m.width, m.ff, down, m.experts)
    yield last_norm
    yield head


def mixtral_metadata(w: GGUFWriter, m: Model) -> None:
    """Llama keys and an SPM tokenizer."""
    common_metadata(w, m)
    w.add_vocab_size(m.vocab)
    w.add_rope_dimension_count(m.head_dim)
    vocabulary.sentencepiece(w, m.vocab)


MODELS = {
    m.name: m
    for m in (
        Model(
            name="gpt-oss-20b",
            arch="gpt-oss",
            layers=24,
            of_layers=24,
            width=2880,
            heads=64,
            kv_heads=8,
            head_dim=64,
            ff=2880,
            experts=32,
            used=4,
            vocab=201088,
            context=131072,
            theta=150000.0,
            file_type=LlamaFileType.MOSTLY_MXFP4_MOE,
            tensors=gpt_oss_tensors,
            metadata=gpt_oss_metadata,
        ),
        Model(
            name="mixtral-8x7b",
            arch="llama",
            layers=32,
            of_layers=32,
            width=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            ff=14336,
            experts=8,
            used=2,
            vocab=32000,
            context=32768,
            theta=1e6,
            file_type=LlamaFileType.MOSTLY_Q4_K_M,
            tensors=mixtral_tensors,
            metadata=mixtral_metadata,
        ),
    )
}
