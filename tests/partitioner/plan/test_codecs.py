"""The codec table and the layout of records, against the native one and the plan format."""

import pytest
from gguf import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from moesaic import _pack
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS, VECTOR_TYPES
from moesaic.partitioner.plan.codecs import CODECS, matrix_bytes, record_layout

SHAPES = [(1, 256), (16, 256), (17, 512), (2880, 2816), (151936, 4096)]


def test_the_native_table_is_the_same():
    table = [
        (c.name, c.code_bytes, c.scale_bytes, c.super_bytes, c.column_multiple)
        for c in CODECS.values()
    ]
    assert table == _pack.codecs()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_the_native_ones(codec, shape):
    assert matrix_bytes(codec, *shape) == _pack.matrix_bytes(codec, *shape)


@pytest.mark.parametrize("codec", [c for c in CODECS if not CODECS[c].is_float])
def test_columns_must_fill_their_blocks(codec):
    with pytest.raises(ValueError, match="bad shape"):
        _pack.matrix_bytes(codec, 16, CODECS[codec].column_multiple + 16)


def test_every_type_has_a_rule():
    rules = {(kind, codec): (cols, size) for kind, _, codec, cols, size in _pack.rules()}
    wanted = {*MATRIX_CODECS.items(), *((kind, "f32") for kind in VECTOR_TYPES)}
    assert rules == {(kind, codec): GGML_QUANT_SIZES[kind] for kind, codec in wanted}


@pytest.mark.parametrize(
    ("kind", "codec"), MATRIX_CODECS.items(), ids=[kind.name for kind in MATRIX_CODECS]
)
def test_strips_are_hardly_larger_than_the_blocks(kind, codec):
    rows, cols = 400, 512
    block, size = GGML_QUANT_SIZES[kind]
    assert matrix_bytes(codec, rows, cols) <= 1.04 * rows * cols // block * size


@pytest.mark.parametrize(
    ("codec", "rows", "cols", "size"),
    [
        ("f32", 5, 1, 64),
        ("f32", 17, 3, 384),
        ("f16", 16, 3, 128),
        ("u4_f16", 1, 32, 256 + 64),
        ("u5_f16", 16, 96, 3 * 320 + 128),
        ("u8_f16", 16, 32, 512 + 64),
        ("u4_e8m0_fp4", 33, 160, 3 * (5 * 256 + 128)),
        ("u4_super_min", 16, 256, 2048 + 256 + 64),
        ("u6_super", 16, 512, 16 * 384 + 512 + 64),
        ("u5_super_min", 16, 256, 8 * 320 + 256 + 64),
        ("u3_super", 16, 768, 24 * 192 + 768 + 128),
        ("u2_super_min", 17, 256, 2 * (8 * 128 + 256 + 64)),
        ("u4_super_nl", 16, 256, 2048 + 128 + 64),
        ("u4_f16_nl", 16, 32, 256 + 64),
        ("u4_f16_min", 16, 96, 3 * 256 + 192),
        ("u5_f16_min", 16, 32, 320 + 64),
    ],
)
def test_sizes_by_hand(codec, rows, cols, size):
    assert matrix_bytes(codec, rows, cols) == size


specs = st.tuples(
    st.just("weight"), st.sampled_from(sorted(CODECS)), st.integers(1, 300), st.integers(1, 8)
).map(lambda s: (s[0], s[1], s[2], s[3] * CODECS[s[1]].column_multiple))


@given(st.lists(specs, min_size=1, max_size=6))
def test_records_are_aligned_and_tight(parts):
    placed, stride = record_layout(parts)
    ends = [part.offset + matrix_bytes(part.codec, part.rows, part.cols) for part in placed]
    assert [part.offset for part in placed] == [0, *ends[:-1]]
    assert all(part.offset % 64 == 0 for part in placed)
    assert stride % (4096 if ends[-1] >= 256 << 10 else 64) == 0
    assert ends[-1] <= stride < ends[-1] + 4096


def test_a_record_of_256_kib_fills_pages():
    assert record_layout([("weight", "f32", 4096, 15)])[1] == 245760
    assert record_layout([("weight", "f32", 4096, 16)])[1] == 262144
    assert record_layout([("weight", "f32", 4112, 16)])[1] == 266240
