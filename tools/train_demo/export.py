"""Write the trained model as a GGUF file with gpt-oss's keys, tensor names and types."""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType
from tokenizers import Tokenizer
from torch import Tensor

from train_demo import corpus
from train_demo.model import DemoModel

ARCHITECTURE = "gpt-oss"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|start|>' + message['role'] + '<|message|>' + message['content'] + '<|end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start|>assistant<|message|>' }}{%- endif -%}"
)


def export(model: DemoModel, tokenizer: Tokenizer, path: Path) -> None:
    """Round every tensor to its type and write the file."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_description(writer)
    _add_hyperparameters(writer, model)
    _add_tokenizer(writer, tokenizer)
    for parameter_name, parameter in model.named_parameters():
        name = _tensor_name(parameter_name)
        kind = _tensor_type(name, parameter)
        data = parameter.detach().float().numpy()
        if kind != QuantType.F32:
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensor_name(parameter: str) -> str:
    """``blk.0.attention.attn_q.weight`` is ``blk.0.attn_q.weight`` in the file, and so on."""
    name = parameter.replace(".attention.", ".").replace(".experts.", ".")
    return name + ".weight" if name.endswith("sinks") else name


def _tensor_type(name: str, parameter: Tensor) -> QuantType:
    """The types of published gpt-oss files: MXFP4 experts, Q8_0 matrices, the rest F32."""
    if name.endswith("_exps.weight"):
        return QuantType.MXFP4
    if name.endswith(".bias") or parameter.dim() == 1 or "ffn_gate_inp" in name:
        return QuantType.F32
    return QuantType.Q8_0


def _add_description(writer: gguf.GGUFWriter) -> None:
    writer.add_name("moesaic demo")
    writer.add_description(
        "A small gpt-oss mixture of experts that ships with moesaic for demos and tests. "
        "It continues prose in the manner of its training text and knows nothing else."
    )
    writer.add_license("mit")
    writer.add_string(
        "general.training_data",
        "Jane Austen's six novels (1811-1817, public domain), "
        "from the Debian package r-cran-janeaustenr",
    )
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_hyperparameters(writer: gguf.GGUFWriter, model: DemoModel) -> None:
    config = model.config
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_vocab_size(config.vocab)
    writer.add_feed_forward_length(config.expert_width)
    writer.add_expert_feed_forward_length(config.expert_width)
    writer.add_expert_count(config.experts)
    writer.add_expert_used_count(config.experts_used)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_sliding_window(config.window)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(config.yarn_factor)
    writer.add_rope_scaling_orig_ctx_len(config.yarn_original_context)
    writer.add_rope_scaling_yarn_beta_fast(32.0)
    writer.add_rope_scaling_yarn_beta_slow(1.0)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Tokens in order of id, their kinds, the merges, and the ids with a special meaning."""
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    special = set(corpus.SPECIAL_TOKENS)
    kinds = [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges(tokenizer))
    writer.add_bos_token_id(tokenizer.token_to_id(corpus.START_OF_TEXT))
    writer.add_eos_token_id(tokenizer.token_to_id(corpus.END_OF_TEXT))
    writer.add_pad_token_id(tokenizer.token_to_id(corpus.END_OF_TEXT))
    writer.add_eot_token_id(tokenizer.token_to_id(corpus.END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def merges(tokenizer: Tokenizer) -> list[str]:
    """The tokenizer's merges as the file stores them, ``"left right"``."""
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
