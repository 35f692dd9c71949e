"""The demo model: trained weights, real text, real routing."""

from pathlib import Path

import numpy as np
from test_models import kl

import moesaic
from moesaic.demo import DEMO_MODEL

GOLDEN = np.load(Path(__file__).parent / "golden" / "demo" / "logits.npz")


def test_the_file_is_small_enough_to_ship():
    assert DEMO_MODEL.stat().st_size <= 6 << 20


def test_logits_on_held_out_text_are_close_to_transformers(demo_plan):
    """Past the sliding window of 128 tokens too. The expert weights are MXFP4, the rest Q8_0."""
    with moesaic.Runtime(demo_plan) as rt:
        logits = rt.logits(GOLDEN["ids"])[GOLDEN["positions"]]
    assert kl(GOLDEN["logits"], logits) <= 2e-3
    worst = np.abs(logits - GOLDEN["logits"]).max() / np.abs(GOLDEN["logits"]).max()
    assert worst <= 0.05


def test_perplexity_on_held_out_text(demo_plan):
    """The held-out perplexity of the model is 29; a chapter's first tokens are harder."""
    with moesaic.Runtime(demo_plan) as rt:
        logits = rt.logits(GOLDEN["ids"]).astype(np.float64)[:-1]
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    perplexity = np.exp(-logprobs[np.arange(len(logprobs)), GOLDEN["ids"][1:]].mean())
    assert perplexity < 60


def test_greedy_text_is_that_of_transformers(demo_plan):
    prompt = str(GOLDEN["greedy_prompt"])
    with moesaic.Runtime(demo_plan) as rt:
        assert rt.tokenizer.encode(prompt) == GOLDEN["greedy_prompt_ids"].tolist()
        reply = rt.generate(prompt, max_tokens=24, temperature=0)
    assert reply.tokens == GOLDEN["greedy_ids"].tolist()
    assert reply.text == str(GOLDEN["greedy_text"])


def test_it_chats(demo_plan):
    with moesaic.Runtime(demo_plan) as rt:
        messages = [{"role": "user", "content": "How do you do, Miss Bennet?"}]
        reply = rt.chat(messages, max_tokens=80, temperature=0)
    assert reply.finish_reason == "stop"
    assert len(reply.text.split()) > 5
