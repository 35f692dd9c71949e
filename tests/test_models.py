"""Whole models, from the GGUF file to logits and text, against transformers in float32."""

import numpy as np
import pytest
from conftest import MODELS

import moesaic
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS
from moesaic.partitioner.gguf.reader import read_gguf

CASES = sorted(path.stem for path in MODELS.glob("*.gguf"))
FLOAT = [case for case in CASES if case.endswith(("f32", "f16", "bf16"))]
QUANTISED = sorted(set(CASES) - set(FLOAT))


def stored(case):
    return np.load(MODELS / f"{case}.npz")


def kl(reference, logits):
    """Mean KL divergence in nats over positions."""

    def log_softmax(x):
        x = x.astype(np.float64)
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(reference), log_softmax(logits)
    return (np.exp(p) * (p - q)).sum(axis=1).mean()


def test_every_type_of_matrix_occurs():
    tensors = [t for case in CASES for t in read_gguf(MODELS / f"{case}.gguf").tensors.values()]
    assert {t.type for t in tensors if len(t.shape) > 1} == set(MATRIX_CODECS)


@pytest.mark.parametrize("case", FLOAT)
def test_float_weights_give_the_logits_of_transformers(case, plan_of):
    expected = stored(case)
    with moesaic.Runtime(plan_of(case, kv_type="f32")) as rt:
        logits = rt.logits(expected["tokens"])
    assert logits.dtype == np.float32
    assert logits.shape == expected["logits"].shape
    error = np.abs(logits - expected["logits"]).max(axis=1) / np.abs(expected["logits"]).max(axis=1)
    assert error.max() <= 1e-4, f"position {error.argmax()}"


@pytest.mark.parametrize("case", QUANTISED)
def test_quantised_weights_are_close_to_the_dequantised_model(case, plan_of):
    """Activations are rounded to int8 per 32 columns: a few percent on such small models."""
    expected = stored(case)
    with moesaic.Runtime(plan_of(case)) as rt:
        logits = rt.logits(expected["tokens"])
    assert kl(expected["logits"], logits) <= 0.01
    difference = np.linalg.norm(logits - expected["logits"]) / np.linalg.norm(expected["logits"])
    assert difference <= 0.05


@pytest.mark.parametrize("case", CASES)
def test_greedy_text_is_that_of_transformers(case, plan_of):
    expected = stored(case)
    margin = 1e-3 if case in FLOAT else 0.5
    decided = np.cumprod(expected["margins"] > margin).sum()  # tokens before the first near tie
    kv_type = "f32" if case in FLOAT else "f16"
    with moesaic.Runtime(plan_of(case, kv_type=kv_type)) as rt:
        reply = rt.generate(
            expected["tokens"].tolist(),
            max_tokens=len(expected["greedy"]),
            temperature=0,
            ignore_eos=True,
        )
    assert reply.tokens[:decided] == expected["greedy"][:decided].tolist()
    assert len(reply.tokens) == len(expected["greedy"])
    assert reply.finish_reason == "length"


def test_merged_and_per_expert_tensors_pack_to_the_same_experts(plan_of):
    expected = stored("mixtral-f32")
    with (
        moesaic.Runtime(plan_of("mixtral-f32", kv_type="f32")) as merged,
        moesaic.Runtime(plan_of("mixtral-split-f16", kv_type="f32")) as split,
    ):
        a, b = merged.logits(expected["tokens"]), split.logits(expected["tokens"])
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max())
