"""The training loop: AdamW over shuffled crops, on a schedule measured in seconds.

The learning rate and the change to quantisation-aware training follow the *time* that has passed,
so a run ends when it was told to, on a fast machine with more steps than on a slow one.
"""

import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from train_demo.corpus import Corpus, as_chats, as_document
from train_demo.model import DemoConfig, DemoModel

TOKENS_PER_STEP = 2048
PEAK_RATE, WARMUP, FINAL_RATE = 2e-3, 0.02, 0.02  # the last two: shares of time and of the peak
LONG_FROM, QUANTISE_FROM = 0.7, 0.65  # shares of the time: whole contexts, rounded experts
BALANCE_WEIGHT = 0.01
_CHECKPOINT_SECONDS = 240.0


class Schedule:
    """Training time as a share of the seconds allowed, and what depends on it."""

    def __init__(self, seconds: float, already_used: float) -> None:
        self._seconds = seconds
        self._start = time.monotonic() - already_used

    @property
    def used(self) -> float:
        """Seconds trained so far, earlier runs included."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """0 at the start, 1 or more when training is over."""
        return self.used / self._seconds

    @property
    def rate(self) -> float:
        """Learning rate: a linear start, then a half cosine down."""
        share = min(self.share, 1.0)
        cosine = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * share)) / 2
        return PEAK_RATE * min(share / WARMUP + 0.01, cosine)


def train(corpus: Corpus, tokenizer: Tokenizer, work: Path, seconds: float) -> DemoModel:
    """Train for so many seconds, going on from ``work/checkpoint.pt`` if it is there."""
    config = DemoConfig()
    torch.manual_seed(0)
    model = DemoModel(config)
    optimiser = torch.optim.AdamW(_parameter_groups(model), betas=(0.9, 0.98), fused=True)
    used, step = _resume(work / "checkpoint.pt", model, optimiser)
    schedule = Schedule(seconds, used)
    stream = Stream(corpus, tokenizer, seed=step)
    held_out = encode_documents(tokenizer, corpus.held_out)
    saved = schedule.used
    while schedule.share < 1:
        length = config.context if schedule.share >= LONG_FROM else config.context // 2
        quantise = schedule.share >= QUANTISE_FROM
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate
        loss = _step(model, optimiser, stream.batch(TOKENS_PER_STEP // length, length), quantise)
        step += 1
        if schedule.used - saved > _CHECKPOINT_SECONDS or schedule.share >= 1:
            saved = schedule.used
            _save(work / "checkpoint.pt", model, optimiser, saved, step)
            report = {
                "seconds": round(saved),
                "step": step,
                "epoch": round(stream.epoch, 2),
                "train_loss": round(loss, 4),
                "held_out_loss": round(held_out_loss(model, held_out, quantise, windows=12), 4),
                "expert_share": _expert_share(model, held_out),
            }
            print(json.dumps(report), flush=True)
    return model


class Stream:
    """Endless batches: every epoch the documents in another order, cut at another offset."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self._rng = random.Random(seed)
        self._documents = [as_document(chapter) for chapter in corpus.train]
        self._chapters = corpus.train
        self._tokenizer = tokenizer
        self._taken = 0
        self.epoch = 0.0
        self._tokens = self._shuffle()

    def batch(self, rows: int, length: int) -> Tensor:
        """Token ids int64 [rows, length + 1]."""
        crops = [self._crop(length) for _ in range(rows)]
        return torch.stack(crops)

    def _crop(self, length: int) -> Tensor:
        if self._taken + length + 1 > len(self._tokens):
            self._tokens, self._taken = self._shuffle(), 0
        crop = self._tokens[self._taken : self._taken + length + 1]
        self._taken += length
        self.epoch += length / len(self._tokens)
        return crop

    def _shuffle(self) -> Tensor:
        """All chapters, and chats made of them a few hundred at a time, in random order."""
        chats = [chat for chapter in self._chapters for chat in as_chats(chapter, self._rng)]
        self._rng.shuffle(chats)
        pieces = self._documents + ["".join(chats[i : i + 20]) for i in range(0, len(chats), 20)]
        self._rng.shuffle(pieces)
        ids = [i for encoded in self._tokenizer.encode_batch(pieces) for i in encoded.ids]
        offset = self._rng.randrange(512)
        return torch.tensor(ids[offset:] + ids[:offset])


def encode_documents(tokenizer: Tokenizer, chapters: list[str]) -> Tensor:
    """The chapters one after another as token ids int64 [n]."""
    encoded = tokenizer.encode_batch([as_document(chapter) for chapter in chapters])
    return torch.tensor([i for chapter in encoded for i in chapter.ids])


@torch.no_grad()
def held_out_loss(
    model: DemoModel, tokens: Tensor, quantise: bool, windows: int | None = None
) -> float:
    """Mean negative log-likelihood (nats per token) over disjoint windows of 512 tokens."""
    losses = []
    for window in list(_windows(tokens, 512))[:windows]:
        logits, _ = model(window[None, :-1], quantise)
        losses.append(functional.cross_entropy(logits[0], window[1:]))
    return torch.stack(losses).mean().item()


def _windows(tokens: Tensor, length: int) -> Iterator[Tensor]:
    """Crops of length + 1 tokens that overlap by the one token that is only a target."""
    for at in range(0, len(tokens) - length, length):
        yield tokens[at : at + length + 1]


def _step(
    model: DemoModel, optimiser: torch.optim.Optimizer, batch: Tensor, quantise: bool
) -> float:
    """One update in bfloat16 arithmetic; returns the loss without the balance term."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, balance = model(batch[:, :-1], quantise)
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
    (loss + BALANCE_WEIGHT * balance).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return loss.item()


def _parameter_groups(model: DemoModel) -> list[dict[str, object]]:
    """Weight decay for matrices only, not for norms, biases, sinks and the embedding."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = name.endswith(".weight") and parameter.dim() > 1 and "token_embd" not in name
        (decayed if matrix else plain).append(parameter)
    return [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def _expert_share(model: DemoModel, tokens: Tensor) -> list[list[float]]:
    """Per layer, the least and the most used expert's share of the routed rows."""
    shares: list[list[float]] = []
    hooks = []
    for layer in model.blk:
        hook = layer.experts.ffn_gate_inp.register_forward_hook(
            lambda _module, _inputs, scores: shares.append(_extremes(scores, model.config))
        )
        hooks.append(hook)
    model(tokens[None, :1024])
    for hook in hooks:
        hook.remove()
    return shares


def _extremes(scores: Tensor, config: DemoConfig) -> list[float]:
    chosen = scores.topk(config.experts_used, dim=-1).indices.flatten()
    share = chosen.bincount(minlength=config.experts) / len(chosen)
    return [round(share.min().item(), 3), round(share.max().item(), 3)]


def _save(
    path: Path, model: DemoModel, optimiser: torch.optim.Optimizer, used: float, step: int
) -> None:
    """Write a checkpoint whole or not at all."""
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    partial = path.with_suffix(".partial")
    torch.save(state | {"used": used, "step": step}, partial)
    partial.replace(path)


def _resume(path: Path, model: DemoModel, optimiser: torch.optim.Optimizer) -> tuple[float, int]:
    """Load a checkpoint if there is one; returns the seconds and steps it had used."""
    if not path.exists():
        return 0.0, 0
    state = torch.load(path)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["used"], state["step"]
