"""On the CPU a result does not depend on threads, chunks or neighbours: compared bit by bit."""

import numpy as np
import pytest
from conftest import MODELS

import moesaic

CASES = ["gpt-oss-mxfp4", "mixtral-k-quants", "gemma3-mixed", "llama-f32"]


def tokens_of(case):
    return np.load(MODELS / f"{case}.npz")["tokens"]


@pytest.mark.parametrize("kv_type", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}, {"batch": 1}, {"batch": 7}])
def test_logits_do_not_depend_on_threads_or_chunks(case, options, kv_type, plan_of):
    tokens = tokens_of(case)
    plan = plan_of(case, kv_type=kv_type)
    with moesaic.Runtime(plan) as rt:
        expected = rt.logits(tokens)
    with moesaic.Runtime(plan, **options) as rt:
        np.testing.assert_array_equal(rt.logits(tokens), expected)


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_gets_the_same_reply_alone_and_in_a_batch(case, plan_of):
    tokens = tokens_of(case).tolist()
    prompts = [tokens, tokens[:1], tokens[3:40], tokens[10:12], tokens[5:]]
    sampling = {"max_tokens": 12, "temperature": 0.9, "seed": 7, "ignore_eos": True, "logprobs": 3}
    with moesaic.Runtime(plan_of(case)) as rt:
        alone = [rt.generate(prompt, **sampling) for prompt in prompts]
        together = rt.generate(prompts, **sampling)
    with moesaic.Runtime(plan_of(case), sequences=2, batch=9) as rt:
        queued = rt.generate(prompts, **sampling)
    for a, b, c in zip(alone, together, queued, strict=True):
        assert a.tokens == b.tokens == c.tokens
        assert a.logprobs == b.logprobs == c.logprobs


@pytest.mark.parametrize("case", CASES)
def test_decoding_gives_the_logits_of_prefill(case, plan_of):
    tokens = tokens_of(case).tolist()
    with moesaic.Runtime(plan_of(case)) as rt:
        reply = rt.generate(tokens, max_tokens=8, temperature=0, ignore_eos=True, logprobs=1)
        logits = rt.logits(tokens + reply.tokens)[len(tokens) - 1 : -1].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    logprobs -= logits.max(1, keepdims=True)
    assert reply.tokens == logits.argmax(axis=1).tolist()
    for row, entry in zip(logprobs, reply.logprobs, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token], abs=1e-4)
