"""Whole models with each type of KV cache, against the float64 oracle with its cache rounded."""

import numpy as np
import pytest
from conftest import MODELS
from kit.attention import stored
from reference import forward
from test_models import kl

import moesaic
from moesaic.plan_format import KV_TYPES

CASES = ["gemma3-f32", "gpt-oss-f32", "llama-tied-f32", "mixtral-f32"]

# Mean KL in nats to the unrounded oracle: at most 3e-6, 2e-4 and 2e-2, the last for gpt-oss, whose
# keys have a few large values in a group; for the others 2e-3.
MOST_KL = {"f32": 1e-10, "f16": 3e-6, "bf16": 2e-4, "q8_0": 2e-2}


def rounded_cache(monkeypatch, kv_type):
    """Makes the oracle round keys and values as numpy or gguf do."""
    attention = forward.attention

    def rounded(q, k, v, *rest):
        k, v = (stored(x.astype(np.float32), kv_type) for x in (k, v))
        return attention(q, k, v, *rest)

    monkeypatch.setattr(forward, "attention", rounded)


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_a_rounded_cache(case, kv_type, plan_of, monkeypatch):
    tokens = np.load(MODELS / f"{case}.npz")["tokens"]
    exact = forward.logits(MODELS / f"{case}.gguf", tokens)
    with moesaic.Runtime(plan_of(case, kv_type=kv_type)) as rt:
        logits = rt.logits(tokens)
    assert kl(exact, logits) <= MOST_KL[kv_type]
    rounded_cache(monkeypatch, kv_type)
    expected = forward.logits(MODELS / f"{case}.gguf", tokens)
    # A value that float32 puts on the other side of a rounding makes a difference of its own.
    assert kl(expected, logits) <= max(0.1 * kl(exact, expected), 1e-10)


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_memory_is_what_was_planned(kv_type, plan_of):
    with moesaic.Runtime(plan_of("gpt-oss-mxfp4", kv_type=kv_type)) as rt:
        (cpu,) = rt.memory()
        assert cpu["kv"] == cpu["planned"]["kv"] > 0


def test_a_plan_changes_its_cache_type(plan_of, tmp_path):
    tokens = np.load(MODELS / "gpt-oss-mxfp4.npz")["tokens"]
    plan = tmp_path / "plan"
    moesaic.partition(MODELS / "gpt-oss-mxfp4.gguf", plan)
    for kv_type in ("q8_0", "f32", "bf16", "f16"):
        moesaic.partition(plan, kv_type=kv_type)
        with (
            moesaic.Runtime(plan) as changed,
            moesaic.Runtime(plan_of("gpt-oss-mxfp4", kv_type=kv_type)) as fresh,
        ):
            np.testing.assert_array_equal(changed.logits(tokens), fresh.logits(tokens))
