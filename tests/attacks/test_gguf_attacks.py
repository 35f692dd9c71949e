"""Hostile GGUF files, one test per attack: each is refused with a `ModelError` that names it."""

import os
import re
import tracemalloc

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T
from kit import tiny_gguf as tiny

from moesaic.errors import ModelError
from moesaic.partitioner.gguf import cursor, read_gguf

F32 = np.arange(8, dtype=np.float32)
HUGE = (1 << 64) - 1


def refuse(path, data: bytes, message: str) -> ModelError:
    """Asserts that the file is refused, naming itself, cheaply."""
    path = path / "bad.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=message) as info:
            read_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 22, "memory follows a number in the file"
    assert str(path) in str(info.value)
    assert info.value.hint
    return info.value


def one(**changes) -> bytes:
    """A file with one tensor `t` of eight floats, some of its fields replaced."""
    fields = {"name": "t", "shape": (8,), "data": F32.tobytes(), **changes}
    return tiny.build((), [tiny.Tensor(**fields)])


# --- the file as a whole ---


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"none\.gguf: no such file"):
        read_gguf(tmp_path / "none.gguf")


def test_directory(tmp_path):
    with pytest.raises(ModelError, match="is a directory"):
        read_gguf(tmp_path)


def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelError, match="not a regular file"):
        read_gguf(tmp_path / "pipe.gguf")


def test_nul_in_the_path(tmp_path):
    with pytest.raises(ModelError):
        read_gguf(f"{tmp_path}/a\0b")


def test_empty_file(tmp_path):
    refuse(tmp_path, b"", "empty")


@pytest.mark.parametrize("data", [b"ggjt" + bytes(60), b"PK\3\4" + bytes(60), b"\x80\x02" * 20])
def test_bad_magic(tmp_path, data):
    refuse(tmp_path, data, "not a GGUF file")


def test_git_lfs_pointer(tmp_path):
    error = refuse(tmp_path, b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file")
    assert "lfs" in error.hint


@pytest.mark.parametrize("version", [0, 1, 4, 0xFFFF, 0xFFFFFFFF])
def test_unknown_version(tmp_path, version):
    refuse(tmp_path, tiny.build(version=version), f"version: expected 2 or 3 but got {version}")


@pytest.mark.parametrize("version", [2, 3])
def test_big_endian(tmp_path, version):
    refuse(tmp_path, tiny.build(version=version << 24), "big-endian")


def test_truncated_anywhere(tmp_path):
    keys = {"general.architecture": "x", "a.list": ["p", "q"], "a.numbers": [1, 2], "a.flag": True}
    whole = tiny.build(keys, [tiny.Tensor.of("t", F32), tiny.Tensor.of("u", F32)])
    (tmp_path / "whole.gguf").write_bytes(whole)
    read_gguf(tmp_path / "whole.gguf")
    for size in range(len(whole)):
        refuse(tmp_path, whole[:size], "empty|ends early|beyond")


# --- counts, lengths and nesting ---


@pytest.mark.parametrize("count", [1 << 20, 1 << 40, 1 << 63, HUGE])
def test_tensor_count(tmp_path, count):
    refuse(tmp_path, tiny.build(tensor_count=count), f"{count} tensors")


def test_tensor_count_within_the_limit_but_not_in_the_file(tmp_path):
    refuse(tmp_path, tiny.build(tensor_count=1 << 18), "the file ends early")


@pytest.mark.parametrize("count", [1 << 20, 1 << 40, 1 << 63, HUGE])
def test_key_count(tmp_path, count):
    refuse(tmp_path, tiny.build(key_count=count), f"{count} metadata keys")


@pytest.mark.parametrize("size", [1 << 20, 1 << 40, 1 << 63, HUGE])
def test_key_length(tmp_path, size):
    refuse(tmp_path, tiny.build(key_count=1) + tiny.u64(size) + b"a", f"metadata key 0: .*{size}")


@pytest.mark.parametrize("size", [2, 1 << 20, 1 << 40, HUGE])
def test_string_length(tmp_path, size):
    value = tiny.u32(T.STRING) + tiny.string("a", size)
    refuse(tmp_path, tiny.build([("k", value)]), f"metadata key 'k': .*{size}")


@pytest.mark.parametrize("kind", [T.STRING, T.UINT8, T.BOOL, T.FLOAT64, T.ARRAY])
@pytest.mark.parametrize("count", [1 << 20, 1 << 40, 1 << 61, HUGE])
def test_array_length(tmp_path, kind, count):
    refuse(tmp_path, tiny.build([("k", tiny.array(kind, [], count))]), "metadata key 'k': ")


@pytest.mark.parametrize("size", [2, 1 << 24, (1 << 24) + 1, 1 << 63, HUGE])
def test_length_of_a_string_in_an_array(tmp_path, size):
    value = tiny.array(T.STRING, [tiny.string("a"), tiny.string("b", size)])
    refuse(tmp_path, tiny.build([("k", value)]), f"'k', string 1 of 2: .*{size}")


def test_array_of_strings_longer_than_its_bytes(tmp_path):
    value = tiny.array(T.STRING, ["a" * 100], count=4)
    refuse(tmp_path, tiny.build([("k", value)]), "'k', string 1 of 4: the file ends early")


def test_deep_nesting(tmp_path):
    value = tiny.array(T.UINT8, [1])[4:]
    for _ in range(5000):
        value = tiny.array(T.ARRAY, [value])[4:]
    refuse(tmp_path, tiny.build([("k", tiny.u32(T.ARRAY) + value)]), "nested deeper")


def test_many_small_arrays(tmp_path):
    empty = tiny.array(T.UINT8, [])[4:]
    data = tiny.build([("k", tiny.array(T.ARRAY, [empty] * (cursor.MAX_ARRAYS + 1)))])
    (tmp_path / "bad.gguf").write_bytes(data)
    with pytest.raises(ModelError, match="arrays allowed"):
        read_gguf(tmp_path / "bad.gguf")


def test_header_beyond_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cursor, "MAX_HEADER_BYTES", 256)
    data = tiny.build({"k": "x" * 300})
    refuse(tmp_path, data, "the header is larger than the 256 bytes allowed")
    refuse(tmp_path, tiny.build({"k": ["x" * 100] * 3}), "the header is larger than the 256")


# --- metadata contents ---


def test_duplicate_key(tmp_path):
    refuse(tmp_path, tiny.build([("k", 1), ("k", 2)]), "metadata key 'k': occurs twice")


def test_empty_key(tmp_path):
    refuse(tmp_path, tiny.build([("", 1)]), "metadata key 0: the key is empty")


@pytest.mark.parametrize("tag", [13, 255, 0xFFFFFFFF])
def test_unknown_value_type(tmp_path, tag):
    refuse(tmp_path, tiny.build([("k", tiny.u32(tag) + bytes(16))]), f"unknown value type {tag}")
    value = tiny.u32(T.ARRAY) + tiny.u32(tag) + tiny.u64(1) + bytes(16)
    refuse(tmp_path, tiny.build([("k", value)]), f"unknown value type {tag}")


def test_invalid_utf8(tmp_path):
    bad = b"a\xff\xc0\xaf"
    refuse(tmp_path, tiny.build([(bad, 1)]), "metadata key 0: .*UTF-8")
    refuse(tmp_path, tiny.build([("k", tiny.typed(T.STRING, bad))]), "'k': .*UTF-8")
    value = tiny.array(T.STRING, [tiny.string("a"), tiny.string(bad)])
    refuse(tmp_path, tiny.build([("k", value)]), "'k': string 1 is not valid UTF-8")
    refuse(tmp_path, one(name=bad), "tensor 0: .*UTF-8")


def test_utf8_encoded_surrogates(tmp_path):
    refuse(tmp_path, tiny.build([("k", tiny.typed(T.STRING, b"\xed\xa0\x80"))]), "UTF-8")


def test_boolean_that_is_neither(tmp_path):
    refuse(tmp_path, tiny.build([("k", tiny.u32(T.BOOL) + b"\2")]), "a boolean is 2")
    refuse(tmp_path, tiny.build([("k", tiny.array(T.BOOL, [b"\1", b"\xff"]))]), "a boolean is 255")


@pytest.mark.parametrize("alignment", [0, 3, 48, 1 << 17, 0xFFFFFFFF])
def test_absurd_alignment(tmp_path, alignment):
    refuse(tmp_path, tiny.build({"general.alignment": alignment}), r"'general\.alignment'")


def test_alignment_of_another_type(tmp_path):
    path = tiny.write(tmp_path / "bad.gguf", {"general.alignment": "32"})
    with pytest.raises(ModelError, match=r"'general\.alignment': expected an unsigned"):
        read_gguf(path)


# --- the tensor table ---


def test_duplicate_tensor_name(tmp_path):
    tensors = [tiny.Tensor.of("t", F32), tiny.Tensor.of("t", F32)]
    refuse(tmp_path, tiny.build((), tensors), "tensor 't': occurs twice")


def test_empty_tensor_name(tmp_path):
    refuse(tmp_path, one(name=""), "tensor 0: the name is empty")


def test_long_tensor_name(tmp_path):
    refuse(tmp_path, one(name="t" * 256), "tensor 0: a string of 256 bytes")


@pytest.mark.parametrize("rank", [0, 5, 1 << 20, 0xFFFFFFFF])
def test_number_of_dimensions(tmp_path, rank):
    refuse(tmp_path, one(rank=rank), f"'t': expected 1 to 4 dimensions but got {rank}")


@pytest.mark.parametrize("dims", [(0,), (8, 0), (0, 8), (8, 1, 0, 1)])
def test_zero_dimension(tmp_path, dims):
    refuse(tmp_path, one(dims=dims), "'t': a dimension is zero")


@pytest.mark.parametrize(
    "dims",
    [
        (9,),
        (1 << 62, 4),  # 2^64 elements: wraps to 0
        (1 << 32, 1 << 32),
        (1 << 61, 8, 1, 1),
        (HUGE,),
        (HUGE, HUGE, HUGE, HUGE),
        ((1 << 62) + 2, 4),  # wraps to the 8 floats that are there
    ],
)
def test_shape_beyond_the_file_and_size_overflow(tmp_path, dims):
    refuse(tmp_path, one(dims=dims), "tensor 't': ends at byte .* beyond the file's")


@pytest.mark.parametrize("tag", [4, 5, 31, 33, 36, 38, 255, 0xFFFFFFFF])
def test_unknown_tensor_type(tmp_path, tag):
    refuse(tmp_path, one(type=tag), f"'t': unknown tensor type {tag}")


@pytest.mark.parametrize(
    ("kind", "width"),
    [(Q.Q4_0, 1), (Q.Q4_0, 31), (Q.MXFP4, 33), (Q.Q6_K, 288), (Q.Q6_K, 32), (Q.NVFP4, 32)],
)
def test_row_that_is_not_whole_blocks(tmp_path, kind, width):
    refuse(tmp_path, one(type=kind, dims=(width, 256)), f"rows of {width} values, not a multiple")


@pytest.mark.parametrize("offset", [32, 1 << 40, (1 << 64) - 32])
def test_offset_beyond_the_file(tmp_path, offset):
    refuse(tmp_path, one(offset=offset), "beyond the file's")


@pytest.mark.parametrize("offset", [1, 31, HUGE])
def test_misaligned_offset(tmp_path, offset):
    refuse(tmp_path, one(offset=offset), f"offset {offset} is not a multiple of the alignment 32")


def test_overlapping_tensors(tmp_path):
    tensors = [
        tiny.Tensor("wide", (16,), data=bytes(64)),
        tiny.Tensor("far", (8,), data=bytes(32), offset=96),
        tiny.Tensor("inside", (8,), data=bytes(32), offset=32),
    ]
    refuse(tmp_path, tiny.build((), tensors), "tensor 'inside': overlaps 'wide'")
    twice = [tiny.Tensor.of("a", F32), tiny.Tensor("b", (8,), data=F32.tobytes(), offset=0)]
    refuse(tmp_path, tiny.build((), twice), "overlaps")


# --- anything else ---


def _valid() -> bytes:
    keys = {
        "general.architecture": "olmoe",
        "general.alignment": 32,
        "olmoe.block_count": 2,
        "olmoe.names": ["alpha", "beta", "gamma"],
        "olmoe.numbers": [1, 2, 3],
        "olmoe.nested": tiny.array(T.ARRAY, [tiny.array(T.BOOL, [True])[4:]]),
        "olmoe.text": "ünïcode",
    }
    tensors = [
        tiny.Tensor.of("a.weight", np.ones((2, 3, 4), np.float32)),
        tiny.Tensor("b.weight", (2, 64), Q.Q4_0, bytes(72)),
        tiny.Tensor.of("c.bias", np.ones(3, np.float32)),
    ]
    return tiny.build(keys, tensors)


def _mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Changes bits, bytes or whole integers, cuts, repeats or inserts."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(out)))
        match int(rng.integers(0, 6)):
            case 0:
                out[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                out[at] = int(rng.integers(0, 256))
            case 2:
                values = [0, 1, 0xFF, 1 << 31, 1 << 32, 1 << 63, HUGE, len(data)]
                out[at : at + 8] = tiny.u64(values[rng.integers(0, len(values))])
            case 3:
                del out[at : at + int(rng.integers(1, 16))]
            case 4:
                out[at:at] = out[at : at + int(rng.integers(1, 32))]
            case _:
                out[at:at] = rng.bytes(int(rng.integers(1, 16)))
        if not out:
            break
    return bytes(out)


def test_random_mutations_parse_or_raise_model_error(tmp_path):
    rng = np.random.default_rng(20261124)
    valid, path = _valid(), tmp_path / "mutant.gguf"
    reasons, parsed = set(), 0
    tracemalloc.start()
    for _ in range(4000):
        path.write_bytes(_mutate(rng, valid))
        try:
            model = read_gguf(path)
            for name, info in model.tensors.items():
                assert model.data(name).size == info.nbytes
                assert model.dequantize(name).shape == info.shape
            parsed += 1
        except ModelError as error:
            reasons.add(re.sub(r"\d+|'[^']*'", "", str(error).removeprefix(str(path))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22
    assert parsed > 100
    assert len(reasons) > 20, "the mutations no longer reach the checks"
