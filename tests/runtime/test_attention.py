"""Attention over the paged cache: against float64 NumPy, and bit for bit whatever the threads, the
chunks, the neighbours and the history of the pages."""

from dataclasses import replace

import numpy as np
import pytest
from kit.attention import Attention, Shape, attend, stored
from kit.ops import ISAS

BF16 = Shape(heads=6, kv_heads=2, k_dim=24, v_dim=17, dtype="bf16", window=33, sinks=True)
Q8_0 = Shape(heads=16, kv_heads=2, k_dim=64, v_dim=80, dtype="q8_0", window=40, sinks=True)
SHAPES = [
    Shape(),
    Shape(heads=1, kv_heads=1, k_dim=1, v_dim=1),
    Shape(heads=3, kv_heads=3, k_dim=20, v_dim=24),
    Shape(heads=8, kv_heads=1, k_dim=80, v_dim=96),
    Shape(heads=6, kv_heads=2, k_dim=24, v_dim=17, dtype="f32"),
    Shape(heads=16, kv_heads=2, k_dim=64, v_dim=64, window=40, sinks=True),
    Shape(heads=4, kv_heads=4, k_dim=128, v_dim=128, dtype="f32", softcap=5.0),
    Shape(heads=4, kv_heads=2, k_dim=48, v_dim=80, window=1),
    Shape(heads=4, kv_heads=2, window=32, softcap=2.0, sinks=True, dtype="f32"),
    Shape(heads=4, kv_heads=2, window=33),
    Shape(heads=71, kv_heads=1, k_dim=16, v_dim=16),
    Shape(heads=2, kv_heads=1, k_dim=256, v_dim=256, window=100),
    Shape(heads=4, kv_heads=2, k_dim=192, v_dim=128, sinks=True),
    Shape(heads=4, kv_heads=2, dtype="bf16"),
    BF16,
    Shape(heads=3, kv_heads=3, k_dim=64, v_dim=80, dtype="bf16", softcap=4.0),
    Shape(heads=8, kv_heads=2, k_dim=64, v_dim=64, dtype="q8_0"),
    Q8_0,
    Shape(heads=4, kv_heads=4, k_dim=128, v_dim=96, dtype="q8_0", softcap=5.0),
    Shape(heads=6, kv_heads=2, k_dim=24, v_dim=17, dtype="q8_0"),
    Shape(heads=3, kv_heads=1, k_dim=80, v_dim=49, dtype="q8_0", window=33),
    Shape(heads=1, kv_heads=1, k_dim=1, v_dim=1, dtype="q8_0", sinks=True),
]
LONG = [
    Shape(heads=2, kv_heads=1, k_dim=16, v_dim=20),
    Shape(heads=3, kv_heads=3, k_dim=16, v_dim=16, dtype="f32", sinks=True, softcap=3.0),
    Shape(heads=4, kv_heads=2, k_dim=16, v_dim=16, window=1500),
    Shape(heads=4, kv_heads=2, k_dim=40, v_dim=32, dtype="q8_0", sinks=True),
    Shape(heads=2, kv_heads=2, k_dim=16, v_dim=16, dtype="bf16", window=1500),
]
DTYPES = ["f16", "f32", "bf16", "q8_0"]


def check(y, shape, qkv):
    expected, error = attend(shape, *qkv)
    np.testing.assert_allclose(y, expected, rtol=0, atol=error)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(shape, isa):
    for rows in (1, 2, 31, 32, 33, 150):
        for spread in (1.0, 4.0):
            qkv = shape.inputs(rows, rows, spread)
            check(Attention(shape, isa=isa).sequence(qkv), shape, qkv)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_for_any_chunks_threads_and_instruction_set(shape):
    qkv = shape.inputs(150)
    expected = Attention(shape).sequence(qkv, 64)
    for isa in ISAS:
        for threads, chunk in [(1, 1), (3, 1), (2, 7), (1, 33), (4, 64)]:
            y = Attention(shape, isa=isa, threads=threads).sequence(qkv, chunk)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_long_contexts_are_folded_by_spans(shape):
    qkv = shape.inputs(3300, spread=2.0)
    expected = Attention(shape, max_rows=512).sequence(qkv)
    check(expected, shape, qkv)
    for threads, max_rows in [(1, 100), (2, 512), (3, 60)]:
        y = Attention(shape, threads=threads, max_rows=max_rows).sequence(qkv)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", LONG, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_decoding_a_long_context_gives_the_bits_of_prefill(shape, threads):
    qkv = shape.inputs(2100)
    expected = Attention(shape, max_rows=512).sequence(qkv)
    op = Attention(shape, threads=threads, max_rows=512)
    sequence = op.step.create()
    op.extend(tuple(x[:2040] for x in qkv), sequence)
    tail = tuple(x[2040:] for x in qkv)
    np.testing.assert_array_equal(op.extend(tail, sequence, 1), expected[2040:])
    op.step.trim(sequence, 2080)
    tail = tuple(x[2080:] for x in qkv)
    np.testing.assert_array_equal(op.extend(tail, sequence, 3), expected[2080:])


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5], SHAPES[2], LONG[0], BF16, Q8_0], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_neighbours_in_a_step_change_nothing(shape, threads):
    lengths = [70, 1, 33, 130] if shape not in LONG else [1100, 5, 40, 2100]
    inputs = [shape.inputs(n, seed) for seed, n in enumerate(lengths)]
    expected = [Attention(shape, max_rows=512).sequence(qkv) for qkv in inputs]
    op = Attention(shape, max_rows=96, threads=threads)
    sequences = [op.step.create() for _ in lengths]
    done = [0] * len(lengths)
    got = [[] for _ in lengths]
    rng = np.random.default_rng(5)
    while any(d < n for d, n in zip(done, lengths, strict=True)):
        pieces = []
        for s in rng.permutation(len(lengths)):
            count = min(int(rng.choice([0, 1, 1, 24])), lengths[s] - done[s])
            pieces.append((s, count, tuple(x[done[s] : done[s] + count] for x in inputs[s])))
            done[s] += count
        if not sum(count for _, count, _ in pieces):
            continue
        rows = [np.full(count, sequences[s], np.int32) for s, count, _ in pieces]
        qkv = tuple(np.concatenate([part[i] for _, _, part in pieces]) for i in range(3))
        y = op.append(qkv, np.concatenate(rows))
        ends = np.cumsum([count for _, count, _ in pieces])[:-1]
        for (s, _, _), part in zip(pieces, np.split(y, ends), strict=True):
            got[s].append(part)
    for parts, want in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), want)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.kv_heads < 5], ids=str)
def test_what_pages_held_before_and_what_others_hold_is_not_read(shape):
    qkv = shape.inputs(75)
    expected = Attention(shape).sequence(qkv)
    op = Attention(shape, threads=2)
    nans = tuple(np.full_like(x, np.nan) for x in shape.inputs(400))
    held = [op.step.create() for _ in range(3)]
    for sequence in held:
        op.extend(nans, sequence)
    for sequence in held[:2]:  # pages of NaN are free again, others are still in use
        op.step.free(sequence)
    for chunk in (1, 13, 64):
        np.testing.assert_array_equal(op.sequence(qkv, chunk), expected)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5], SHAPES[6], BF16, Q8_0], ids=str)
def test_values_of_later_tokens_never_reach_earlier_ones(shape):
    q, k, v = shape.inputs(60)
    expected = Attention(shape).sequence((q, k, v))
    for bad in (np.nan, np.inf, -np.inf):
        k2, v2 = k.copy(), v.copy()
        k2[41:], v2[41:] = bad, bad
        np.testing.assert_array_equal(Attention(shape).sequence((q, k2, v2))[:41], expected[:41])


def test_values_before_the_window_are_forgotten():
    shape = Shape(window=40)
    q, k, v = shape.inputs(200)
    expected = Attention(shape).sequence((q, k, v))
    k[:50], v[:50] = np.nan, np.nan
    y = Attention(shape).sequence((q, k, v))
    np.testing.assert_array_equal(y[89:], expected[89:])
    assert np.isnan(y[88]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [0, 70])
def test_forked_sequences_share_their_past_and_nothing_else(window, dtype):
    shape = Shape(k_dim=40, window=window, dtype=dtype)
    common, left, right = (shape.inputs(n, n) for n in (45, 61, 62))
    op = Attention(shape)
    first = op.step.create()
    op.extend(common, first)
    second = op.step.fork(first)
    y_right = op.extend(right, second, 5)
    y_left = op.extend(left, first, 9)
    for branch, y in ((left, y_left), (right, y_right)):
        whole = tuple(np.concatenate(x) for x in zip(common, branch, strict=True))
        np.testing.assert_array_equal(y, Attention(shape).sequence(whole)[45:])


def test_a_full_window_is_no_window():
    shape = Shape()
    qkv = shape.inputs(90)
    np.testing.assert_array_equal(
        Attention(replace(shape, window=90)).sequence(qkv), Attention(shape).sequence(qkv)
    )


def read_back(shape, values, isa):
    """Values of one token as the cache gives them back: attention to it alone is the identity."""
    one = np.ones((1, shape.heads * shape.k_dim), np.float32)
    return Attention(shape, isa=isa).sequence((one, one, values[None]))[0]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cache_holds_what_its_type_says(dtype, isa):
    rng = np.random.default_rng(0)
    for dim in (1, 15, 16, 31, 32, 33, 64, 80, 96):
        shape = Shape(heads=1, kv_heads=1, k_dim=1, v_dim=dim, dtype=dtype)
        for spread in (1e-30, 1e-6, 1.0, 1e3):
            values = (rng.standard_normal(dim) * spread).astype(np.float32)
            values[rng.integers(0, dim, dim // 4)] = 0
            np.testing.assert_array_equal(read_back(shape, values, isa), stored(values, dtype))


@pytest.mark.parametrize("isa", ISAS)
def test_halves_round_as_the_type_says(isa):
    ties = {
        "f16": [1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25, 65519.0, -65519.0],
        "bf16": [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2**-140, 3.4e38, -3 * 2**-134],
        "q8_0": [127.0, 0.5, -0.5, 1.5, 2.5, -2.5, 126.5, -0.49999997],  # the scale is one
    }
    for dtype, values in ties.items():
        shape = Shape(heads=1, kv_heads=1, k_dim=1, v_dim=len(values), dtype=dtype)
        row = np.array(values, np.float32)
        np.testing.assert_array_equal(read_back(shape, row, isa), stored(row, dtype))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_no_cache_can_hold_is_not_hidden(dtype, isa):
    shape = Shape(heads=1, kv_heads=1, k_dim=1, v_dim=64, dtype=dtype)
    for bad in (np.nan, np.inf, -np.inf):
        values = np.ones(64, np.float32)
        values[40] = bad
        y = read_back(shape, values, isa)
        assert not np.isfinite(y[40])
        np.testing.assert_array_equal(y[:32], stored(values[:32], dtype))  # the other group


def test_scores_far_apart_stay_finite():
    shape = Shape(heads=1, kv_heads=1, k_dim=16, v_dim=16, dtype="f32", sinks=True)
    qkv = shape.inputs(80, spread=60.0)
    check(Attention(shape).sequence(qkv), shape, qkv)
