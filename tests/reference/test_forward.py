"""The oracle against transformers: logits of every committed tiny model."""

from pathlib import Path

import numpy as np
import pytest
from kit.edited_gguf import edited
from reference import forward
from reference.layers import sigmoid

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
    path, whole = MODELS / f"{case}.gguf", np.concatenate([stored["tokens"], stored["greedy"]])
    first = len(stored["tokens"])
    if "rope_factors_long.weight" in forward.Model(path).tensors:  # the table follows the length
        y = np.stack([forward.logits(path, whole[:n])[-1] for n in range(first, len(whole))])
    else:
        y = forward.logits(path, whole[:-1])[first - 1 :]
    decided = stored["margins"] > 1e-3
    assert decided.sum() >= len(decided) - 2
    np.testing.assert_array_equal(y.argmax(axis=1)[decided], stored["greedy"][decided])


def test_merged_and_split_experts_hold_the_same_model():
    tokens = np.load(MODELS / "mixtral-f32.npz")["tokens"]
    merged = forward.logits(MODELS / "mixtral-f32.gguf", tokens)
    split = forward.logits(MODELS / "mixtral-split-f16.gguf", tokens)
    np.testing.assert_array_equal(merged, split)


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [
        ("granite-f32", "embedding_scale", 1.0),
        ("granite-f32", "residual_scale", 1.0),
        ("granite-f32", "attention.scale", 0.0),
        ("granite-f32", "logit_scale", 1.0),
        ("granitemoe-f32", "residual_scale", 1.0),
        ("granitemoe-f32", "attention.scale", 0.0),
        ("qwen2moe-dense-norm-f16", "expert_weights_norm", False),
    ],
)
def test_the_models_notice_a_key(tmp_path, case, key, value):
    stored = np.load(MODELS / f"{case}.npz")
    family = case.split("-")[0]
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", {f"{family}.{key}": value})
    wrong = forward.logits(path, stored["tokens"])
    assert relative_errors(wrong, stored["logits"]).max() > 0.01


def _wrong(monkeypatch, mistake):
    """Puts one plausible mistake into the oracle."""
    rope_table, rope, attention = forward.rope_table, forward.rope, forward.attention
    longrope_table = forward.longrope_table
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
        "no clamp": ("clamped_swiglu", lambda g, u: g * sigmoid(1.702 * g) * (u + 1)),
        "short table only": ("longrope_table", lambda m, n, f: longrope_table(m, 0, f)),
        "long table only": ("longrope_table", lambda m, n, f: longrope_table(m, 1 << 30, f)),
        "factor of the file": (
            "longrope_table",
            lambda m, n, f: longrope_table(m, n, m.hp("rope.scaling.attn_factor")),
        ),
        "softmax for sparsemixer": ("sparsemixer_route", forward.softmax_route),
        "every weight 1": (
            "sparsemixer_route",
            lambda s, n: (forward.softmax_route(s, n)[0], np.ones((len(s), 2))),
        ),
        "weights normalised": ("whole_softmax_route", forward.softmax_route),
        "weights not normalised": ("softmax_route", forward.whole_softmax_route),
        "no shared expert": ("shared_expert", lambda m, p, x, act: 0.0 * x),
        "shared expert without its gate": (
            "shared_expert",
            lambda m, p, x, act: forward.mlp(m, p, x, act, "_shexp"),
        ),
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
        ("qwen2-yarn-q8_0", "rope scaling ignored"),
        ("qwen2-f32", "other rope style"),
        ("qwen3-f32", "other rope style"),
        ("qwen2moe-f32", "shared expert without its gate"),
        ("qwen2moe-f32", "no shared expert"),
        ("qwen2moe-f32", "weights normalised"),
        ("qwen2moe-dense-norm-f16", "weights not normalised"),
        ("qwen3moe-f32", "weights not normalised"),
        ("qwen3moe-dense-unnormed-f16", "weights normalised"),
        ("olmoe-f32", "weights normalised"),
        ("olmoe-norm-q4_0", "weights not normalised"),
        ("deepseek-f32", "no shared expert"),
        ("deepseek-f32", "weights normalised"),
        ("deepseek-f32", "other rope style"),
        ("granite-f32", "other rope style"),
        ("granitemoe-f32", "weights not normalised"),
        ("granitemoe-shared-f16", "no shared expert"),
        ("phimoe-f32", "long table only"),
        ("phimoe-f32", "factor of the file"),
        ("phimoe-f32", "softmax for sparsemixer"),
        ("phimoe-f32", "every weight 1"),
        ("phimoe-f32", "other rope style"),
        ("phimoe-long-f32", "short table only"),
        ("phimoe-long-q4_0", "short table only"),
        ("phimoe-grin-f32", "every weight 1"),
    ],
)
def test_the_models_notice_a_mistake(monkeypatch, case, mistake):
    stored = np.load(MODELS / f"{case}.npz")
    _wrong(monkeypatch, mistake)
    wrong = forward.logits(MODELS / f"{case}.gguf", stored["tokens"])
    assert relative_errors(wrong, stored["logits"]).max() > 0.01
