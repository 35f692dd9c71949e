"""The reader against files written by the `gguf` package, and its own promises."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T
from kit import tiny_gguf as tiny

from moesaic.errors import ModelError
from moesaic.partitioner.gguf import read_gguf

RNG_SEED = 7
CODED = [k for k in gguf.GGML_QUANT_SIZES if k not in (Q.Q8_1, Q.Q8_K, Q.Q1_0)]


def _judge_file(path: Path) -> dict[str, np.ndarray]:
    """A file with every scalar type, arrays and tensors, from the package's own writer."""
    rng = np.random.default_rng(RNG_SEED)
    writer = gguf.GGUFWriter(path, "olmoe")
    writer.add_uint8("k.u8", 200)
    writer.add_int8("k.i8", -100)
    writer.add_uint16("k.u16", 60000)
    writer.add_int16("k.i16", -30000)
    writer.add_uint32("olmoe.block_count", 4_000_000_000)
    writer.add_int32("k.i32", -2_000_000_000)
    writer.add_uint64("k.u64", 1 << 63)
    writer.add_int64("k.i64", -(1 << 62))
    writer.add_float32("k.f32", 0.5)
    writer.add_float64("k.f64", 0.1)
    writer.add_bool("k.bool", val=True)
    writer.add_string("k.str", "héllo 🙂")
    writer.add_array("k.ints", [-1, 2, 3])
    writer.add_array("k.strs", ["a", "", "ü▁"])
    writer.add_array("k.bools", [True, False])
    tensors = {
        "a.weight": rng.standard_normal((3, 5, 64)).astype(np.float32),
        "b.weight": rng.standard_normal((1, 96)).astype(np.float16),
        "c.bias": rng.standard_normal(7).astype(np.float32),
    }
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_reads_what_the_gguf_package_writes(tmp_path):
    tensors = _judge_file(tmp_path / "m.gguf")
    model = read_gguf(tmp_path / "m.gguf")
    md = model.metadata
    assert model.version == 3
    assert model.architecture == "olmoe"
    assert model.hyper.u32("block_count") == 4_000_000_000
    assert [md.int(f"k.{n}") for n in ("u8", "i8", "u16", "i16", "i32", "u64", "i64")] == [
        200,
        -100,
        60000,
        -30000,
        -2_000_000_000,
        1 << 63,
        -(1 << 62),
    ]
    assert md.f32("k.f32") == 0.5
    assert md.f32("k.f64") == 0.1
    assert md.bool("k.bool") is True
    assert md.str("k.str") == "héllo 🙂"
    assert md.array("k.ints", int) == [-1, 2, 3]
    assert md.array("k.strs", str) == ["a", "", "ü▁"]
    assert md.array("k.bools", bool) == [True, False]
    assert list(model.tensors) == list(tensors)
    for name, values in tensors.items():
        assert model.tensors[name].shape == values.shape
        assert model.data(name).tobytes() == values.tobytes()
        np.testing.assert_array_equal(model.dequantize(name), values.astype(np.float32))


def test_offsets_are_absolute_and_equal_those_of_the_gguf_package(tmp_path):
    path = tmp_path / "m.gguf"
    _judge_file(path)
    model = read_gguf(path)
    for judge in gguf.GGUFReader(path).tensors:
        info = model.tensors[judge.name]
        assert (info.offset, info.nbytes) == (judge.data_offset, judge.n_bytes)
        assert info.path == path


@pytest.mark.parametrize("kind", CODED, ids=lambda k: k.name)
def test_every_tensor_type_of_the_table_can_be_listed_and_read(tmp_path, kind):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(RNG_SEED)
    data = rng.integers(0, 60, 2 * 3 * 2 * size, np.uint8)  # small bytes: every f16 is finite
    path = tiny.write(
        tmp_path / "m.gguf", (), [tiny.Tensor("t", (2, 3, 2 * block), kind, data.tobytes())]
    )
    model = read_gguf(path)
    info = model.tensors["t"]
    assert (info.type, info.shape, info.nbytes) == (kind, (2, 3, 2 * block), data.size)
    values = model.dequantize("t")
    assert values.shape == (2, 3, 2 * block)
    if kind.name[0] not in "IF" or kind.name.startswith("IQ"):
        judge = gguf.quants.dequantize(data.reshape(6, -1), kind)
        np.testing.assert_array_equal(values.reshape(6, -1), judge)


def test_a_type_that_cannot_be_decoded_says_so(tmp_path):
    path = tiny.write(tmp_path / "m.gguf", (), [tiny.Tensor("t", (256,), Q.Q8_K, bytes(292))])
    with pytest.raises(ModelError, match=r"'t'.*Q8_K"):
        read_gguf(path).dequantize("t")


def test_data_is_a_read_only_view_of_the_file(tmp_path):
    path = tiny.write(
        tmp_path / "m.gguf", (), [tiny.Tensor.of("t", np.arange(4, dtype=np.float32))]
    )
    model = read_gguf(path)
    data = model.data("t")
    del model
    assert not data.flags.writeable
    assert not data.flags.owndata
    np.testing.assert_array_equal(data.view(np.float32), [0, 1, 2, 3])


def test_dequantize_returns_memory_of_its_own(tmp_path):
    path = tiny.write(tmp_path / "m.gguf", (), [tiny.Tensor.of("t", np.ones(4, np.float32))])
    model = read_gguf(path)
    model.dequantize("t")[:] = 5
    np.testing.assert_array_equal(model.dequantize("t"), np.ones(4))


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_moves_the_data(tmp_path, alignment):
    tensors = [tiny.Tensor.of(f"t{i}", np.full(3, i, np.float32)) for i in range(3)]
    path = tiny.write(
        tmp_path / "m.gguf", {"general.alignment": alignment}, tensors, alignment=alignment
    )
    model = read_gguf(path)
    for i in range(3):
        assert model.tensors[f"t{i}"].offset % alignment == 0
        np.testing.assert_array_equal(model.dequantize(f"t{i}"), np.full(3, i))


def test_version_2_and_a_file_without_tensors(tmp_path):
    model = read_gguf(tiny.write(tmp_path / "m.gguf", {"a": 1}, version=2))
    assert model.version == 2
    assert dict(model.metadata) == {"a": 1}
    assert model.tensors == {}


def test_nested_arrays_of_two_levels(tmp_path):
    inner = [tiny.array(T.INT32, [1, 2])[4:], tiny.array(T.STRING, ["x"])[4:]]
    model = read_gguf(tiny.write(tmp_path / "m.gguf", {"a": tiny.array(T.ARRAY, inner)}))
    first, second = model.metadata["a"]
    assert first.tolist() == [1, 2]
    assert second == ["x"]


def test_a_missing_tensor_is_named(tmp_path):
    model = read_gguf(tiny.write(tmp_path / "m.gguf"))
    with pytest.raises(ModelError, match=r"m\.gguf: tensor 'token_embd\.weight' is missing"):
        model.data("token_embd.weight")


def test_identity_follows_the_content_and_not_the_name(tmp_path):
    def identity(name, key=1, value=0.0, count=5000):
        values = np.zeros(count, np.float32)
        values[count // 2] = value
        path = tiny.write(tmp_path / name, {"k": key}, [tiny.Tensor.of("t", values)])
        return read_gguf(path).identity()

    base = identity("a")
    assert base == identity("b")
    assert (
        len({base, identity("c", key=2), identity("d", value=1.0), identity("e", count=5008)}) == 4
    )
