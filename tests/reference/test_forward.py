"""The oracle against transformers: logits of every committed tiny model."""

from pathlib import Path

import numpy as np
import pytest
from reference import forward

MODELS = Path(__file__).resolve().parent.parent / "golden" / "models"
CASES = sorted(p.stem for p in MODELS.glob("*.gguf"))


def relative_errors(got, wanted):
    """max |difference| / max |wanted| of every position."""
    return np.abs(got - wanted).max(axis=1) / np.abs(wanted).max(axis=1)


def test_there_is_a_model_of_every_family():
    archs = {forward.Model(MODELS / f"{c}.gguf").arch for c in CASES}
    assert archs == set(forward.FAMILIES)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case):
    stored = np.load(MODELS / f"{case}.npz")
    errors = relative_errors(
        forward.logits(MODELS / f"{case}.gguf", stored["tokens"]), stored["logits"]
    )
    worst = int(errors.argmax())
    assert errors[worst] <= 1e-4, f"position {worst}"


@pytest.mark.parametrize("case", CASES)
def test_greedy_continuation_where_the_margin_decides(case):
    stored = np.load(MODELS / f"{case}.npz")
    whole = np.concatenate([stored["tokens"], stored["greedy"]])
    y = forward.logits(MODELS / f"{case}.gguf", whole[:-1])[len(stored["tokens"]) - 1 :]
    decided = stored["margins"] > 1e-3
    assert decided.sum() >= len(decided) - 2
    np.testing.assert_array_equal(y.argmax(axis=1)[decided], stored["greedy"][decided])


def test_merged_and_split_experts_hold_the_same_model():
    tokens = np.load(MODELS / "mixtral-f32.npz")["tokens"]
    merged = forward.logits(MODELS / "mixtral-f32.gguf", tokens)
    split = forward.logits(MODELS / "mixtral-split-f16.gguf", tokens)
    np.testing.assert_array_equal(merged, split)


def _wrong(monkeypatch, mistake):
    """Puts one plausible mistake into the oracle."""
    rope_table, rope, attention = forward.rope_table, forward.rope, forward.attention
    patches = {
        "yarn ramp truncated": (
            "rope_table",
            lambda m, theta, scaled=True, truncate=True: rope_table(m, theta, scaled=scaled),
        ),
        "rope scaling ignored": (
            "rope_table",
            lambda m, theta, scaled=True, truncate=True: rope_table(m, theta, scaled=False),
        ),
        "one theta for all layers": (
            "rope_table",
            lambda m, theta, scaled=True, truncate=True: rope_table(m, m.hp("rope.freq_base")),
        ),
        "other rope style": (
            "rope",
            lambda x, table, interleaved: rope(x, table, interleaved=not interleaved),
        ),
        "window one too long": (
            "attention",
            lambda q, k, v, scale, window=0, sinks=None: attention(
                q, k, v, scale, window + (window > 0), sinks
            ),
        ),
        "no sinks": (
            "attention",
            lambda q, k, v, scale, window=0, sinks=None: attention(q, k, v, scale, window),
        ),
        "windows on the wrong layers": (
            "is_windowed",
            lambda m, layer, period: (layer + 1) % period < period - 1,
        ),
        "no clamp": ("clamped_swiglu", lambda g, u: g * forward.sigmoid(1.702 * g) * (u + 1)),
        "gelu for silu": ("silu_gate", lambda g, u: forward.gelu_gate(g, u)),
    }
    monkeypatch.setattr(forward, *patches[mistake])


@pytest.mark.parametrize(
    ("case", "mistake"),
    [
        ("gpt-oss-f32", "yarn ramp truncated"),
        ("gpt-oss-f32", "rope scaling ignored"),
        ("gpt-oss-f32", "other rope style"),
        ("gpt-oss-f32", "window one too long"),
        ("gpt-oss-f32", "windows on the wrong layers"),
        ("gpt-oss-f32", "no sinks"),
        ("gpt-oss-f32", "no clamp"),
        ("gemma3-f32", "window one too long"),
        ("gemma3-f32", "windows on the wrong layers"),
        ("gemma3-f32", "one theta for all layers"),
        ("gemma3-linear-f16", "rope scaling ignored"),
        ("llama-f32", "rope scaling ignored"),
        ("llama-f32", "other rope style"),
        ("llama-bias-f32", "rope scaling ignored"),
        ("mixtral-f32", "gelu for silu"),
    ],
)
def test_the_models_notice_a_mistake(monkeypatch, case, mistake):
    stored = np.load(MODELS / f"{case}.npz")
    _wrong(monkeypatch, mistake)
    wrong = forward.logits(MODELS / f"{case}.gguf", stored["tokens"])
    assert relative_errors(wrong, stored["logits"]).max() > 0.01
