"""Rope tables: the numbers of published models, and the formulas of transformers."""

import math

import numpy as np
import pytest
from conftest import MODELS
from kit.edited_gguf import edited
from kit.tiny_gguf import Tensor

from moesaic.errors import ModelError
from moesaic.partitioner.arch import build_model
from moesaic.partitioner.arch._rope import Yarn, frequencies
from moesaic.partitioner.gguf import read_gguf


def table(path, name="rope.inv_freq"):
    """The table of a model file as it will be packed, float32."""
    built = build_model(read_gguf(path))
    source = next(s for s in built.sources if s.name == name)
    return source.parts[0].records[0].data


def scale_of(path):
    graph = build_model(read_gguf(path)).graph.graph
    return next(n for n in graph if n.op_type == "Rope").attributes["scale"].value


def test_frequencies():
    expected = [1.0, 0.1, 0.01, 0.001]
    np.testing.assert_allclose(frequencies(10000.0, 8), expected, rtol=1e-15)


def test_the_ramp_of_gpt_oss_is_not_rounded():
    yarn = Yarn(32.0, 4096, 32.0, 1.0, truncate=False)
    plain = frequencies(150000.0, 64)
    scaled = yarn.apply(plain, 150000.0)
    low, high = 8.092779, 17.398025  # of the published model
    ramp = np.clip((np.arange(32) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(scaled, plain / 32 * ramp + plain * (1 - ramp), rtol=1e-6)
    assert scaled[8] == plain[8]
    assert scaled[18] == plain[18] / 32
    assert yarn.attention == pytest.approx(1.3465736, abs=1e-7)


def test_a_rounded_ramp_differs_where_it_ends():
    plain = frequencies(150000.0, 64)
    rounded = Yarn(32.0, 4096, 32.0, 1.0, truncate=True).apply(plain, 150000.0)
    ramp = np.clip((np.arange(32) - 8) / 10, 0, 1)
    np.testing.assert_allclose(rounded, plain / 32 * ramp + plain * (1 - ramp), rtol=1e-12)


def test_a_ramp_of_no_width_is_a_step():
    plain = frequencies(10000.0, 8)
    scaled = Yarn(4.0, 7, 1.0, 1.0, truncate=True).apply(plain, 10000.0)
    assert np.isfinite(scaled).all()
    assert scaled[-1] == plain[-1] / 4


def test_linear_scaling_divides(tmp_path):
    source = MODELS / "mixtral-f32.gguf"
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    path = edited(source, tmp_path / "x.gguf", keys)
    np.testing.assert_allclose(table(path) * 4, table(source), rtol=1e-6)


@pytest.mark.parametrize("keys", [{"llama.rope.scaling.type": "none"}, {}])
def test_no_factor_or_no_type_leaves_the_table(tmp_path, keys):
    source = MODELS / "mixtral-f32.gguf"
    path = edited(source, tmp_path / "x.gguf", keys | {"llama.rope.scaling.factor": 1.0})
    np.testing.assert_array_equal(table(path), table(source))


def test_rope_freqs_divide(tmp_path):
    source = MODELS / "mixtral-f32.gguf"
    divisors = np.linspace(1, 8, len(table(source)), dtype=np.float32)
    extra = Tensor.of("rope_freqs.weight", divisors)
    path = edited(source, tmp_path / "x.gguf", tensors={"rope_freqs.weight": extra})
    np.testing.assert_allclose(table(path) * divisors, table(source), rtol=1e-6)


def test_gemma3_without_a_base_has_the_original_one(tmp_path):
    path = edited(MODELS / "gemma3-f32.gguf", tmp_path / "x.gguf", {"gemma3.rope.freq_base": None})
    found = table(path)
    np.testing.assert_allclose(found, frequencies(1e6, 2 * len(found)), rtol=1e-6)


def test_gpt_oss_may_state_its_base_twice(tmp_path):
    source = MODELS / "gpt-oss-f32.gguf"
    path = edited(source, tmp_path / "x.gguf", {"gpt-oss.rope.freq_base_swa": 150000.0})
    np.testing.assert_array_equal(table(path), table(source))


def test_gemma3_scales_only_full_layers(tmp_path):
    source = MODELS / "gemma3-f32.gguf"
    keys = {
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": None,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
    }
    path = edited(source, tmp_path / "x.gguf", keys)
    dims = 2 * len(table(path))
    np.testing.assert_allclose(table(path), frequencies(1e6, dims) / 8, rtol=1e-6)
    local = table(path, "rope.inv_freq_swa")
    np.testing.assert_allclose(local, frequencies(1e4, dims), rtol=1e-6)


PHIMOE = MODELS / "phimoe-f32.gguf"
MSCALE = np.float32(1.243163121016122)  # of the published models


def rope_nodes(path):
    graph = build_model(read_gguf(path)).graph.graph
    return [n for n in graph if n.op_type == "Rope"]


def test_longrope_has_a_table_for_long_sequences():
    tensors = read_gguf(PHIMOE)
    plain = frequencies(1e4, 2 * len(table(PHIMOE)))
    for name, kind in (("rope.inv_freq", "short"), ("rope.inv_freq_long", "long")):
        divisors = tensors.dequantize(f"rope_factors_{kind}.weight")
        np.testing.assert_allclose(table(PHIMOE, name) * divisors, plain, rtol=1e-6)
    for node in rope_nodes(PHIMOE):
        assert [value.name for value in node.inputs[2:]] == ["rope.inv_freq", "rope.inv_freq_long"]
        assert node.attributes["original_context"].value == 48
        assert node.attributes["scale"].value == MSCALE


def test_phimoe_without_divisors_has_the_plain_rope(tmp_path):
    keys = {"phimoe.rope.scaling.attn_factor": 1.19}
    for path in (
        MODELS / "phimoe-grin-f32.gguf",
        edited(MODELS / "phimoe-grin-f32.gguf", tmp_path / "x.gguf", keys),
    ):
        np.testing.assert_allclose(table(path), frequencies(1e4, 2 * len(table(path))), rtol=1e-6)
        for node in rope_nodes(path):
            assert len(node.inputs) == 3
            assert node.attributes["original_context"].value == 0
            assert node.attributes["scale"].value == 1.0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"attn_factor": None}, MSCALE),
        ({"attn_factor": 1.1902381}, MSCALE),  # which converters write
        ({"mscale": 1.5}, 1.5),
        ({"mscale": 1.0, "attn_factor": 1.1902381}, 1.0),
    ],
)
def test_phimoe_has_a_factor_of_its_own(tmp_path, keys, expected):
    keys = {f"phimoe.rope.scaling.{name}": value for name, value in keys.items()}
    path = edited(PHIMOE, tmp_path / "x.gguf", keys)
    assert scale_of(path) == np.float32(expected)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, math.sqrt(1 + math.log(4096 / 64) / math.log(64))),
        ({"scaling.factor": 8.0}, math.sqrt(1 + math.log(8) / math.log(64))),
        ({"scaling.attn_factor": 1.25}, 1.25),
        ({"scaling.original_context_length": 4096}, 1.0),
        ({"scaling.original_context_length": 8192}, 1.0),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_longrope_of_other_families(tmp_path, keys, expected, named):
    source = MODELS / "mixtral-f32.gguf"
    half = len(table(source))
    short, long = np.linspace(1, 2, half), np.linspace(1, 40, half)
    extra = {
        f"rope_factors_{kind}.weight": Tensor.of(f"rope_factors_{kind}.weight", np.float32(values))
        for kind, values in (("short", short), ("long", long))
    }
    keys = {"scaling.original_context_length": 64} | keys
    keys |= {"scaling.type": "longrope"} if named else {}
    changed = {f"llama.rope.{key}": value for key, value in keys.items()}
    path = edited(source, tmp_path / "x.gguf", changed, extra)
    assert scale_of(path) == pytest.approx(expected, rel=1e-6)
    for name, divisors in (("rope.inv_freq", short), ("rope.inv_freq_long", long)):
        np.testing.assert_allclose(table(path, name) * divisors, table(source), rtol=1e-6)
    (original,) = {node.attributes["original_context"].value for node in rope_nodes(path)}
    assert original == keys["scaling.original_context_length"]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_divisors_are_positive(tmp_path, value):
    name = "rope_factors_long.weight"
    values = np.ones(len(table(PHIMOE)), np.float32)
    values[3] = value
    path = edited(PHIMOE, tmp_path / "x.gguf", tensors={name: Tensor.of(name, values)})
    with pytest.raises(ModelError, match=name):
        build_model(read_gguf(path))


def test_yarn_multiplies_cos_and_sin(tmp_path):
    keys = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 16.0,
        "llama.rope.scaling.original_context_length": 64,
    }
    path = edited(MODELS / "mixtral-f32.gguf", tmp_path / "x.gguf", keys)
    assert scale_of(path) == np.float32(0.1 * math.log(16) + 1)
    path = edited(path, tmp_path / "y.gguf", {"llama.rope.scaling.yarn_attn_factor": 1.75})
    assert scale_of(path) == 1.75  # the `attention_factor` of a configuration replaces it


@pytest.mark.parametrize(
    ("case", "name"), [("mixtral", "rope_freqs"), ("phimoe", "rope_factors_short")]
)
def test_positions_are_scaled_once(tmp_path, case, name):
    source, family = MODELS / f"{case}-f32.gguf", "llama" if case == "mixtral" else case
    half = len(table(source))
    name = f"{name}.weight"
    keys = {f"{family}.rope.scaling.type": "linear", f"{family}.rope.scaling.factor": 4.0}
    divisors = Tensor.of(name, np.ones(half, np.float32))
    path = edited(source, tmp_path / "x.gguf", keys, {name: divisors})
    with pytest.raises(ModelError, match=f"rope.scaling.type.*{name}"):
        build_model(read_gguf(path))
