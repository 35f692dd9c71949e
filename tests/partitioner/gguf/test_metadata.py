"""Typed metadata getters: what they accept, and what their errors name."""

import pytest
from gguf import GGUFValueType as T
from kit import tiny_gguf as tiny

from moesaic.errors import ModelError
from moesaic.partitioner.gguf import Metadata, read_gguf


@pytest.fixture
def md(tmp_path) -> Metadata:
    keys = {
        "general.architecture": "olmoe",
        "olmoe.attention.head_count": 16,
        "olmoe.rope.freq_base": 1e4,
        "olmoe.flag": True,
        "olmoe.widths": [1, 2, 3],
        "olmoe.names": ["a", "b"],
        "olmoe.windowed": [True, False, True],
        "olmoe.scores": [0.5, -1.0],
        "olmoe.nothing": [],
        "olmoe.minus": tiny.typed(T.INT32, -1),
        "olmoe.wide": tiny.typed(T.UINT64, 1 << 40),
        "olmoe.nan": float("nan"),
    }
    return read_gguf(tiny.write(tmp_path / "m.gguf", keys)).metadata


def test_scoped_views_see_only_their_keys(md):
    view = md.scoped("olmoe")
    assert view.int("attention.head_count") == 16
    assert view.scoped("attention").u32("head_count") == 16
    assert "general.architecture" not in view
    assert "attention.head_count" in view
    assert len(view) == len(md) - 1
    assert list(view.scoped("attention")) == ["head_count"]


def test_defaults_are_used_only_for_missing_keys(md):
    view = md.scoped("olmoe")
    assert view.u32("none", 3) == 3
    assert view.int("none", None) is None
    assert view.f32("none", 0.5) == 0.5
    assert view.bool("none", False) is False
    assert view.str("none", "x") == "x"
    assert view.array("none", int, None) is None
    with pytest.raises(ModelError, match="expected an unsigned 32-bit integer but got float32"):
        view.u32("rope.freq_base", 3)


def test_a_missing_key_names_file_and_full_key(md):
    with pytest.raises(
        ModelError, match=r"m\.gguf: metadata key 'olmoe\.none': is missing"
    ) as info:
        md.scoped("olmoe").u32("none")
    assert info.value.hint


@pytest.mark.parametrize(
    ("getter", "key", "expected", "got"),
    [
        ("int", "flag", "an integer", "bool"),
        ("u32", "minus", "an unsigned 32-bit integer", "-1"),
        ("u32", "wide", "an unsigned 32-bit integer", "1099511627776"),
        ("u32", "names", "an unsigned 32-bit integer", "array of 2 string"),
        ("f32", "attention.head_count", "a floating-point number", "uint32"),
        ("f32", "nan", "a finite number", "nan"),
        ("bool", "attention.head_count", "a boolean", "uint32"),
        ("str", "flag", "a string", "bool"),
    ],
)
def test_wrong_types_are_named(md, getter, key, expected, got):
    with pytest.raises(ModelError, match=rf"'olmoe\.{key}': expected {expected} but got {got}"):
        getattr(md.scoped("olmoe"), getter)(key)


def test_arrays(md):
    view = md.scoped("olmoe")
    assert view.array("widths", int) == [1, 2, 3]
    assert view.array("names", str) == ["a", "b"]
    assert view.array("windowed", bool) == [True, False, True]
    assert view.array("scores", float) == [0.5, -1.0]
    assert view.is_array("widths")
    assert not view.is_array("flag")
    assert not view.is_array("none")
    with pytest.raises(ModelError, match="expected an array of strings but got array of 3 uint32"):
        view.array("widths", str)
    with pytest.raises(ModelError, match="expected an array of integers but got uint32"):
        view.array("attention.head_count", int)


def test_an_array_handed_out_is_a_copy(md):
    md.array("olmoe.names", str).append("c")
    assert md.array("olmoe.names", str) == ["a", "b"]


def test_per_layer_takes_a_scalar_or_an_array(md):
    view = md.scoped("olmoe")
    assert view.per_layer("attention.head_count", 3, int) == [16, 16, 16]
    assert view.per_layer("widths", 3, int) == [1, 2, 3]
    assert view.per_layer("windowed", 3, bool) == [True, False, True]
    assert view.per_layer("none", 2, int, 7) == [7, 7]
    with pytest.raises(ModelError, match="expected 4 values, one a layer, but got 3"):
        view.per_layer("widths", 4, int)
    with pytest.raises(ModelError, match="is missing"):
        view.per_layer("none", 2, int)


def test_an_architecture_name_cannot_be_a_path(tmp_path):
    for name in ("../x", "a/b", "", "A", "a" * 65, "a\n"):
        model = read_gguf(tiny.write(tmp_path / "m.gguf", {"general.architecture": name}))
        with pytest.raises(ModelError, match="not an architecture name"):
            _ = model.architecture
