"""Judge the exported file with transformers' own gpt-oss in float32, from the file alone.

Nothing of the training code takes part: the weights come from the file through
``gguf.quants.dequantize`` and the numbers from ``GptOssForCausalLM``.
"""

import math
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GptOssForCausalLM

from train_demo import corpus, tokenizer
from train_demo.model import DemoConfig, DemoModel

GOLDEN_TOKENS = 192
GOLDEN_POSITIONS = (*range(8), *range(120, 136), *range(176, 192))  # both sides of the window
GREEDY_PROMPT = "Elizabeth looked at him"  # no step of its continuation is a close call
GREEDY_TOKENS = 24
_NAMES = {  # GGUF name in a layer -> transformers name in a layer
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.router",
}


class Perplexity(NamedTuple):
    """Exponential of the mean negative log-likelihood, per token and per byte of text."""

    per_token: float
    per_byte: float


def load(path: Path) -> GptOssForCausalLM:
    """The file's weights, dequantised, in transformers' model."""
    reader = gguf.GGUFReader(path)
    tensors = {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        for t in reader.tensors
    }
    config = DemoConfig()
    model = GptOssForCausalLM._from_config(
        config.to_transformers(), attn_implementation="eager", dtype=torch.float32
    )
    model.load_state_dict(_state(tensors, config.layers), strict=True)
    return model.eval()


def perplexity(
    model: GptOssForCausalLM | DemoModel, tokens: Tensor, bpe: Tokenizer, quantise: bool = False
) -> Perplexity:
    """Over disjoint windows of the whole context; special tokens count no bytes."""
    context = DemoConfig().context
    total, count, size = 0.0, 0, 0
    for at in range(0, len(tokens) - 1, context):
        window = tokens[at : at + context + 1]
        scores = logits(model, window[:-1], quantise)
        total += functional.cross_entropy(scores, window[1:], reduction="sum").item()
        count += len(window) - 1
        size += sum(_byte_length(bpe, i) for i in window[1:].tolist())
    return Perplexity(math.exp(total / count), math.exp(total / size))


@torch.no_grad()
def logits(model: GptOssForCausalLM | DemoModel, ids: Tensor, quantise: bool = False) -> Tensor:
    """Float32 logits [n, vocab] of one sequence of ids [n]; ``quantise`` is DemoModel's."""
    if isinstance(model, DemoModel):
        return model(ids[None], quantise)[0][0]
    return model(ids[None]).logits[0]


def generate(
    model: GptOssForCausalLM, ids: list[int], count: int, temperature: float = 0.0
) -> tuple[list[int], list[float]]:
    """Continue ``ids`` greedily or by sampling; also each step's lead of the best logit."""
    ids, leads = list(ids), []
    start = len(ids)
    for _ in range(count):
        last = logits(model, torch.tensor(ids))[-1]
        best = last.topk(2).values
        leads.append((best[0] - best[1]).item())
        if temperature > 0:
            ids.append(int(torch.multinomial((last / temperature).softmax(-1), 1)))
        else:
            ids.append(int(last.argmax()))
    return ids[start:], leads


def write_golden(model: GptOssForCausalLM, tokens: Tensor, bpe: Tokenizer, path: Path) -> None:
    """Save logits of held-out text and a greedy continuation for moesaic's own tests."""
    ids = tokens[1000 : 1000 + GOLDEN_TOKENS]
    prompt = bpe.encode(GREEDY_PROMPT).ids
    continued, leads = generate(model, prompt, GREEDY_TOKENS)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        ids=ids.numpy().astype(np.int32),
        positions=np.array(GOLDEN_POSITIONS, np.int32),
        logits=logits(model, ids)[list(GOLDEN_POSITIONS)].numpy(),
        greedy_prompt=np.array(GREEDY_PROMPT),
        greedy_prompt_ids=np.array(prompt, np.int32),
        greedy_ids=np.array(continued, np.int32),
        greedy_leads=np.array(leads, np.float32),
        greedy_text=np.array(bpe.decode(continued)),
    )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer rebuilt from the file's own tokens and merges."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    pairs = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    return tokenizer.byte_level({token: i for i, token in enumerate(tokens)}, pairs)


def _byte_length(bpe: Tokenizer, token: int) -> int:
    """Each character of a byte-level token stands for one byte."""
    text = bpe.id_to_token(token) or ""
    return 0 if text in corpus.SPECIAL_TOKENS else len(text)


def _state(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """GGUF tensors as transformers' state dictionary."""
    state = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    for n in range(layers):
        prefix = f"blk.{n}."
        layer = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        state |= {f"model.layers.{n}.{k}": v for k, v in _layer_state(layer).items()}
    return state


def _layer_state(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer; gate and up rows interleave, and expert matrices are stored transposed."""
    state = {
        f"{_NAMES[stem]}.{kind}": tensor
        for (stem, kind), tensor in ((k.split("."), v) for k, v in layer.items())
        if stem in _NAMES
    }
    gate_up = [
        torch.stack([layer[f"ffn_gate_exps.{k}"], layer[f"ffn_up_exps.{k}"]], dim=2).flatten(1, 2)
        for k in ("weight", "bias")
    ]
    state["self_attn.sinks"] = layer["attn_sinks.weight"]
    state["mlp.experts.gate_up_proj"] = gate_up[0].transpose(1, 2)
    state["mlp.experts.gate_up_proj_bias"] = gate_up[1]
    state["mlp.experts.down_proj"] = layer["ffn_down_exps.weight"].transpose(1, 2)
    state["mlp.experts.down_proj_bias"] = layer["ffn_down_exps.bias"]
    return state
