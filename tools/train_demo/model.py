"""A compact gpt-oss for training: the same numbers as transformers' ``GptOssForCausalLM``.

Weights have the names and shapes of the GGUF file, so that export is a loop and the check of the
exported file (``reference.py``) is independent of this module.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GptOssConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from train_demo.mxfp4 import straight_through

SWIGLU_ALPHA, SWIGLU_LIMIT = 1.702, 7.0  # constants of the architecture: no GGUF key holds them


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the demo model; one windowed and one full attention layer alternate."""

    vocab: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 8
    experts_used: int = 2
    expert_width: int = 256
    window: int = 128
    context: int = 1024
    rope_theta: float = 150000.0
    yarn_factor: float = 4.0
    yarn_original_context: int = 256
    norm_eps: float = 1e-5

    def to_transformers(self) -> GptOssConfig:
        """The same model as a transformers configuration."""
        return GptOssConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            num_local_experts=self.experts,
            num_experts_per_tok=self.experts_used,
            intermediate_size=self.expert_width,
            sliding_window=self.window,
            max_position_embeddings=self.context,
            rms_norm_eps=self.norm_eps,
            tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": self.rope_theta,
                "factor": self.yarn_factor,
                "original_max_position_embeddings": self.yarn_original_context,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
        )


class DemoModel(nn.Module):
    """Token ids [B, T] to logits [B, T, vocab] and a load-balancing loss."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab, config.width)
        self.blk = nn.ModuleList(Layer(config, i % 2 == 0) for i in range(config.layers))
        self.output_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.output = nn.Linear(config.width, config.vocab, bias=False)
        inv_freq, self.rope_scale = ROPE_INIT_FUNCTIONS["yarn"](config.to_transformers(), None)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.apply(self._initialise)

    def forward(self, ids: Tensor, quantise: bool = False) -> tuple[Tensor, Tensor]:
        """Logits and balance loss; ``quantise`` rounds the expert weights to MXFP4."""
        angles = torch.arange(ids.shape[1])[:, None] * self.inv_freq
        cos, sin = angles.cos() * self.rope_scale, angles.sin() * self.rope_scale
        hidden = self.token_embd(ids)
        balance = hidden.new_zeros(())
        for layer in self.blk:
            hidden, layer_balance = layer(hidden, cos, sin, quantise)
            balance = balance + layer_balance
        return self.output(self.output_norm(hidden)), balance / len(self.blk)

    def _initialise(self, module: nn.Module) -> None:
        """Normal weights; the matrices that write to the residual stream start smaller."""
        residual_std = 0.02 / math.sqrt(2 * self.config.layers)
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Attention):
            nn.init.normal_(module.attn_output.weight, std=residual_std)
        if isinstance(module, Experts):
            nn.init.normal_(module.ffn_down_exps.weight, std=residual_std)


class Layer(nn.Module):
    """Attention and experts, each behind a norm and added to the residual stream."""

    def __init__(self, config: DemoConfig, windowed: bool) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config, windowed)
        self.post_attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.experts = Experts(config)

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, quantise: bool
    ) -> tuple[Tensor, Tensor]:
        """One layer over ``hidden`` [B, T, width]; also the balance loss of its router."""
        hidden = hidden + self.attention(self.attn_norm(hidden), cos, sin)
        rows = self.post_attention_norm(hidden).flatten(0, 1)
        mixed, balance = self.experts(rows, quantise)
        return hidden + mixed.view_as(hidden), balance


class Attention(nn.Module):
    """Grouped-query attention with sinks, a causal mask and perhaps a window."""

    def __init__(self, config: DemoConfig, windowed: bool) -> None:
        super().__init__()
        self.config = config
        self.windowed = windowed
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attn_q = nn.Linear(config.width, inner)
        self.attn_k = nn.Linear(config.width, kv)
        self.attn_v = nn.Linear(config.width, kv)
        self.attn_output = nn.Linear(inner, config.width)
        self.attn_sinks = nn.Parameter(torch.zeros(config.heads))

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend within each sequence of ``rows`` [B, T, width]."""
        batch, length, _ = rows.shape
        queries = _rotate(self._heads(self.attn_q(rows)), cos, sin)
        keys = _rotate(self._heads(self.attn_k(rows)), cos, sin)
        values = self._heads(self.attn_v(rows))
        group = self.config.heads // self.config.kv_heads
        keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
        queries, keys, values = self._with_sink(queries, keys, values)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=self._mask(length),
            scale=self.config.head_dim**-0.5,
        )
        mixed = mixed[..., : self.config.head_dim].transpose(1, 2).reshape(batch, length, -1)
        return self.attn_output(mixed)

    def _heads(self, rows: Tensor) -> Tensor:
        """[B, T, n * head_dim] to [B, n, T, head_dim]."""
        return rows.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def _with_sink(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """Express the sink as one more key that every query sees, with a zero value.

        One extra dimension carries it: the query holds the unscaled sink, only that key holds 1.
        """
        batch, heads, length, dim = queries.shape
        sink = (self.attn_sinks * dim**0.5).view(1, heads, 1, 1).expand(batch, heads, length, 1)
        queries = torch.cat([queries, sink.to(queries)], dim=-1)
        keys = functional.pad(keys, (0, 1, 1, 0))
        keys[..., 0, -1] = 1
        return queries, keys, functional.pad(values, (0, 1, 1, 0))

    def _mask(self, length: int) -> Tensor:
        """True where query i (row) may see key j (column); column 0 is the sink."""
        age = torch.arange(length)[:, None] - torch.arange(length)
        visible = age >= 0
        if self.windowed:
            visible &= age < self.config.window
        return functional.pad(visible, (1, 0), value=True)


class Experts(nn.Module):
    """Router and experts: every row goes through its ``experts_used`` best experts."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.ffn_gate_inp = nn.Linear(config.width, config.experts)
        self.ffn_gate_exps = Stack(config.experts, config.expert_width, config.width)
        self.ffn_up_exps = Stack(config.experts, config.expert_width, config.width)
        self.ffn_down_exps = Stack(config.experts, config.width, config.expert_width)

    def forward(self, rows: Tensor, quantise: bool) -> tuple[Tensor, Tensor]:
        """Mix the experts' outputs for ``rows`` [N, width]."""
        with torch.autocast("cpu", enabled=False):
            scores = self.ffn_gate_inp(rows.float())
        best, chosen = scores.topk(self.config.experts_used, dim=-1)
        weights = best.softmax(dim=-1)
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=self.config.experts)
        source = order // self.config.experts_used
        outputs = self._run(rows[source], counts.tolist(), quantise)
        outputs = outputs * weights.flatten()[order, None]
        mixed = torch.zeros_like(rows).index_add(0, source, outputs.to(rows.dtype))
        return mixed, self._balance(scores, counts)

    def _run(self, rows: Tensor, counts: list[int], quantise: bool) -> Tensor:
        """Rows sorted by expert through their experts: one matrix product each."""
        stacks = (self.ffn_gate_exps, self.ffn_up_exps, self.ffn_down_exps)
        gate_w, up_w, down_w = (
            straight_through(s.weight) if quantise else s.weight for s in stacks
        )
        outputs = []
        for e, part in enumerate(rows.split(counts)):
            gate = functional.linear(part, gate_w[e], self.ffn_gate_exps.bias[e])
            up = functional.linear(part, up_w[e], self.ffn_up_exps.bias[e])
            gate = gate.clamp(max=SWIGLU_LIMIT)
            up = up.clamp(-SWIGLU_LIMIT, SWIGLU_LIMIT)
            inner = (up + 1) * gate * torch.sigmoid(gate * SWIGLU_ALPHA)
            outputs.append(functional.linear(inner, down_w[e], self.ffn_down_exps.bias[e]))
        return torch.cat(outputs)

    def _balance(self, scores: Tensor, counts: Tensor) -> Tensor:
        """1 when all experts get equal shares of rows and probability, more otherwise."""
        share = counts / counts.sum()
        return self.config.experts * (share * scores.softmax(dim=-1).mean(dim=0)).sum()


class Stack(nn.Module):
    """One matrix [outputs, inputs] and one bias [outputs] per expert."""

    def __init__(self, experts: int, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, outputs, inputs) * 0.02)
        self.bias = nn.Parameter(torch.zeros(experts, outputs))


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [B, n, T, head_dim]: dimension i pairs with i + head_dim / 2."""
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(heads.dtype)
