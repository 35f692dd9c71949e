"""Every operator but Linear, Experts and Attention: against float64 NumPy, on every instruction
set, and bit for bit whatever the threads, the neighbouring rows and the buffers."""

import gguf
import numpy as np
import pytest
from kit.blocks import random_blocks
from kit.ops import ISAS, run, vector
from reference.strips import FLOATS, READERS, encode

from moesaic.errors import PlanError
from moesaic.runtime._native import kernels, ops

WIDTHS = (1, 2, 15, 16, 17, 31, 64, 100, 2880)
ROWS = (1, 2, 5, 70)


def normal(*shape, seed=0, spread=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def same_everywhere(call, inputs):
    """Runs `call(inputs, **options)` in every way that must not change a bit; its outputs."""
    expected = call(inputs)
    for isa in ISAS:
        for threads in (1, 3):
            for got, want in zip(call(inputs, isa=isa, threads=threads), expected, strict=True):
                np.testing.assert_array_equal(got, want)
    for row in {0, len(inputs[0]) // 2, len(inputs[0]) - 1}:
        alone = call([x[row : row + 1] for x in inputs])
        for got, want in zip(alone, expected, strict=True):
            np.testing.assert_array_equal(got[0], want[row])
    return expected


# RMSNorm


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("width", "groups"), [*((w, 1) for w in WIDTHS), (96, 3), (2560, 20), (51, 3)]
)
@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm(rows, width, groups, weighted):
    size = width // groups
    weight = normal(size, seed=1) if weighted else None
    x = normal(rows, width) * np.exp2(np.arange(rows)[:, None] % 30 - 15).astype(np.float32)

    def call(inputs, **options):
        attrs = {"eps": 1e-6, "groups": groups}
        return run("RMSNorm", attrs, inputs, [width], [vector(weight)], **options)

    (y,) = same_everywhere(call, [x])
    np.testing.assert_array_equal(call([x], in_place=True)[0], y)
    g = x.astype(np.float64).reshape(rows, groups, size)
    expected = g / np.sqrt(np.mean(g * g, axis=-1, keepdims=True) + 1e-6)
    if weight is not None:
        expected = expected * weight
    np.testing.assert_allclose(y, expected.reshape(rows, width), rtol=6e-7)


def test_rms_norm_sums_long_rows_accurately():
    x = np.abs(normal(4, 65536)) + 1.0
    (y,) = run("RMSNorm", {"eps": 0.0, "groups": 1}, [x], [65536], [None])
    expected = x / np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=1, keepdims=True))
    np.testing.assert_allclose(y, expected, rtol=1e-6)


# LayerNorm


def layer_norm(x, weight, bias, eps):
    x = x.astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    y = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", [*WIDTHS, 63, 65, 4096])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(rows, width, biased):
    weight, bias = normal(width, seed=1), normal(width, seed=2) if biased else None
    x = normal(rows, width) * np.exp2(np.arange(rows)[:, None] % 20 - 10).astype(np.float32)
    x += normal(rows, 1, seed=3)  # means of all sizes

    def call(inputs, **options):
        weights = [vector(weight), vector(bias)]
        return run("LayerNorm", {"eps": 1e-5}, inputs, [width], weights, **options)

    (y,) = same_everywhere(call, [x])
    np.testing.assert_array_equal(call([x], in_place=True)[0], y)
    expected = layer_norm(x, weight, bias, 1e-5)
    # Rounding the mean moves every value by some of its ulps, which eps keeps from growing further.
    spread = np.sqrt(x.astype(np.float64).var(axis=1) + 1e-5)
    moved = 1 + np.abs(x).max(axis=1) / spread
    error = np.abs(y - expected).max(axis=1)
    assert (error <= 5e-7 * moved * (np.abs(weight).max() * 4 + 4)).all()


def test_layer_norm_of_a_large_mean_keeps_its_digits():
    x = normal(6, 4096) + 1000.0
    (y,) = run("LayerNorm", {"eps": 1e-5}, [x], [4096], [vector(np.ones(4096)), None])
    np.testing.assert_allclose(y, layer_norm(x, 1.0, None, 1e-5), atol=1.5e-4)
    assert np.abs(y.mean(axis=1)).max() < 1e-4


def test_layer_norm_of_equal_values_is_the_bias():
    x = np.repeat(np.array([[0.0], [3.5], [-7.25], [1e30]], np.float32), 50, axis=1)
    bias = normal(50)
    (y,) = run("LayerNorm", {"eps": 1e-5}, [x], [50], [vector(normal(50, seed=1)), vector(bias)])
    np.testing.assert_array_equal(y[:3], np.tile(bias, (3, 1)))


# Rope


def rotate(x, positions, inv_freq, *, heads, head_dim, rotary_dims, offset, style, scale, **_):
    angle = (positions[:, None].astype(np.float32) * inv_freq).astype(np.float64)[:, None]
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    y = x.astype(np.float64).reshape(len(x), heads, head_dim).copy()
    part = y[..., offset : offset + rotary_dims]
    half = rotary_dims // 2
    first, second = (
        (slice(0, half), slice(half, None))
        if style == "neox"
        else (slice(0, None, 2), slice(1, None, 2))
    )
    a, b = part[..., first].copy(), part[..., second].copy()
    part[..., first], part[..., second] = a * cos - b * sin, b * cos + a * sin
    return y.reshape(x.shape)


@pytest.mark.parametrize("style", ["neox", "norm"])
@pytest.mark.parametrize(
    ("heads", "head_dim", "rotary_dims", "offset"),
    [
        (1, 2, 2, 0),
        (4, 64, 64, 0),
        (3, 80, 32, 0),
        (2, 96, 64, 32),
        (5, 20, 18, 1),
        (8, 128, 128, 0),
    ],
)
@pytest.mark.parametrize("rows", ROWS)
def test_rope(style, heads, head_dim, rotary_dims, offset, rows):
    attrs = {"heads": heads, "head_dim": head_dim, "rotary_dims": rotary_dims, "offset": offset}
    attrs |= {"style": style, "scale": 1.25, "original_context": 0}
    width = heads * head_dim
    x = normal(rows, width)
    rng = np.random.default_rng(rows)
    positions = rng.integers(0, 200_000, rows, np.int32)
    positions[0] = 0
    inv_freq = (1e4 ** (-np.arange(rotary_dims // 2) * 2 / rotary_dims)).astype(np.float32)

    def call(inputs, **options):
        return run("Rope", attrs, inputs, [width], [vector(inv_freq), None], **options)

    (y,) = same_everywhere(call, [x, positions])
    np.testing.assert_array_equal(call([x, positions], in_place=True)[0], y)
    expected = rotate(x, positions, inv_freq, **attrs)
    error = np.abs(y - expected).max(axis=1)
    assert (error <= 3e-7 * np.abs(x).max(axis=1) * 1.25 * 1.5).all()
    if offset:
        np.testing.assert_array_equal(
            y.reshape(rows, heads, -1)[..., :offset], x.reshape(rows, heads, -1)[..., :offset]
        )


def test_rope_follows_the_positions_of_each_step():
    attrs = {
        "heads": 1,
        "head_dim": 4,
        "rotary_dims": 4,
        "offset": 0,
        "style": "neox",
        "scale": 1.0,
        "original_context": 0,
    }
    inv_freq = np.array([1.0, 0.01], np.float32)
    step = ops.Step(
        "Rope", attrs, [4, 1], [4], weights=[vector(inv_freq), None], max_rows=3, isa=ISAS[-1]
    )
    x = normal(3, 4)
    for positions in ([0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4], [7], [3, 4, 5]):
        p = np.array(positions, np.int32)
        (y,) = step.run([x[: len(p)], p[:, None]])
        np.testing.assert_allclose(y, rotate(x[: len(p)], p, inv_freq, **attrs), atol=1e-6)


@pytest.mark.parametrize("style", ["neox", "norm"])
@pytest.mark.parametrize("rows", ROWS)
def test_rope_with_a_table_for_extended_sequences(style, rows):
    attrs = {"heads": 3, "head_dim": 20, "rotary_dims": 18, "offset": 1, "style": style}
    attrs |= {"scale": 1.25, "original_context": 4096}
    rng = np.random.default_rng(rows)
    x = normal(rows, 60)
    positions = rng.integers(0, 200_000, rows, np.int32)
    extended = rng.integers(0, 2, rows, np.int32)
    short, long = (rng.uniform(0.001, 1, 9).astype(np.float32) for _ in range(2))

    def call(inputs, **options):
        return run("Rope", attrs, inputs, [60], [vector(short), vector(long)], **options)

    (y,) = same_everywhere(call, [x, positions, extended])
    inv_freq = np.where(extended[:, None] == 1, long, short)
    error = np.abs(y - rotate(x, positions, inv_freq, **attrs)).max(axis=1)
    assert (error <= 3e-7 * np.abs(x).max(axis=1) * 1.25 * 1.5).all()
    for flag, table in ((0, short), (1, long)):  # the same bits as with that table alone
        alone = attrs | {"original_context": 0}
        (one,) = run("Rope", alone, [x, positions], [60], [vector(table), None])
        np.testing.assert_array_equal(y[extended == flag], one[extended == flag])


def test_rope_follows_the_tables_of_each_step():
    attrs = {"heads": 1, "head_dim": 4, "rotary_dims": 4, "offset": 0, "style": "neox"}
    attrs |= {"scale": 1.0, "original_context": 8}
    short, long = np.array([1.0, 0.01], np.float32), np.array([0.5, 0.003], np.float32)
    tables = [vector(short), vector(long)]
    step = ops.Step("Rope", attrs, [4, 1, 1], [4], weights=tables, max_rows=3, isa=ISAS[-1])
    x, positions = normal(3, 4), np.array([3, 4, 5], np.int32)
    for extended in ([0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0], [0, 0], [0, 0, 0]):
        n, flags = len(extended), np.array(extended, np.int32)
        (y,) = step.run([x[:n], positions[:n, None], flags[:, None]])
        inv_freq = np.where(flags[:, None] == 1, long, short)
        np.testing.assert_allclose(y, rotate(x[:n], positions[:n], inv_freq, **attrs), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "lengths", "original", "message"),
    [
        (2, [9, 9], 64, "expected 3 inputs, got 2"),
        (3, [9, None], 0, "expected 2 inputs, got 3"),
        (2, [9, None], 64, "original_context: expected 0 to 0, got 64"),
        (3, [9, 9], 0, "original_context: expected 1 to"),
        (3, [9, 9], -5, "original_context: expected 1 to"),
        (3, [9, 9], 2**40, "original_context: expected 1 to"),
        (3, [9, 8], 64, r"expected \[9, 1\], got \[8, 1\]"),
        (3, [9, 10], 64, r"expected \[9, 1\], got \[10, 1\]"),
        (3, [None, 9], 64, "weight 0 is missing"),
        (2, [9], 0, "expected 2 weights, got 1"),
        (4, [9, 9], 64, "inputs"),
    ],
)
def test_rope_tables_are_validated(inputs, lengths, original, message):
    attrs = {"heads": 3, "head_dim": 20, "rotary_dims": 18, "offset": 1, "style": "neox"}
    attrs |= {"scale": 1.0, "original_context": original}
    zeros = np.zeros(2, np.int32)
    values = [normal(2, 60), *[zeros] * (inputs - 1)]
    weights = [vector(None if n is None else np.ones(n)) for n in lengths]
    with pytest.raises(PlanError, match=message):
        run("Rope", attrs, values, [60], weights)


# Route


def choose(keys, used):
    return np.lexsort((np.broadcast_to(np.arange(keys.shape[1]), keys.shape), -keys))[:, :used]


def routed(logits, bias, *, experts, used, gating, eps, renormalise, scale):
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    if gating == "softmax":
        ids = choose(z if bias is None else p + bias, used)
        weights = np.take_along_axis(p, ids, axis=1)
    else:
        ids = choose(z if bias is None else z + bias, used)
        chosen = np.take_along_axis(z, ids, axis=1)
        weights = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
    if renormalise:
        weights /= weights.sum(axis=1, keepdims=True)
    return ids, weights * scale


def route(inputs, attrs, bias=None, **options):
    return run("Route", attrs, inputs, [attrs["used"]] * 2, [vector(bias)], **options)


@pytest.mark.parametrize("gating", ["softmax", "softmax_selected"])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("experts", "used"), [(1, 1), (8, 2), (32, 4), (37, 37), (128, 8), (500, 6)]
)
def test_route(gating, renormalise, biased, experts, used):
    attrs = {
        "experts": experts,
        "used": used,
        "gating": gating,
        "eps": 0.0,
        "renormalise": renormalise,
    }
    attrs["scale"] = 2.5
    logits = normal(90, experts, spread=3.0)
    bias = normal(experts, seed=4) * 0.1 if biased else None
    ids, weights = same_everywhere(lambda x, **o: route(x, attrs, bias, **o), [logits])
    expected_ids, expected = routed(logits, bias, **attrs)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(weights, expected, rtol=2e-6)


@pytest.mark.parametrize("gating", ["softmax", "softmax_selected"])
def test_route_gives_ties_to_the_lowest_index(gating):
    attrs = {
        "experts": 40,
        "used": 6,
        "gating": gating,
        "eps": 0.0,
        "renormalise": True,
        "scale": 1.0,
    }
    logits = np.round(normal(200, 40))
    logits[0] = 0.0
    ids, _ = route([logits], attrs)
    np.testing.assert_array_equal(ids, choose(logits.astype(np.float64), 6))
    np.testing.assert_array_equal(ids[0], np.arange(6))


@pytest.mark.parametrize("gating", ["softmax", "softmax_selected"])
@pytest.mark.parametrize("biased", [True, False])
def test_route_stays_in_range_whatever_the_logits_are(gating, biased):
    attrs = {
        "experts": 24,
        "used": 5,
        "gating": gating,
        "eps": 0.0,
        "renormalise": True,
        "scale": 1.0,
    }
    rng = np.random.default_rng(3)
    bias = normal(24) if biased else None
    logits = normal(300, 24)
    strange = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0], np.float32)
    logits = np.where(rng.random(logits.shape) < 0.5, rng.choice(strange, logits.shape), logits)
    logits[0] = np.nan
    ids, _ = same_everywhere(lambda x, **o: route(x, attrs, bias, **o), [logits.astype(np.float32)])
    assert ids.min() >= 0
    assert ids.max() < 24
    assert all(len(set(row)) == 5 for row in ids.tolist())
    np.testing.assert_array_equal(ids[0], np.arange(5))


def test_route_prefers_numbers_to_nan():
    attrs = {
        "experts": 24,
        "used": 5,
        "gating": "softmax_selected",
        "eps": 0.0,
        "renormalise": True,
    }
    logits = np.where(np.random.default_rng(8).random((200, 24)) < 0.6, np.nan, normal(200, 24))
    logits[:, :2] = np.nan
    ids, _ = route([logits], attrs | {"scale": 1.0})
    np.testing.assert_array_equal(ids, choose(np.nan_to_num(logits, nan=-np.inf), 5))


SPARSEMIXER = {"used": 2, "gating": "sparsemixer", "eps": 0.01, "renormalise": False, "scale": 1.0}


def sparsemixed(logits):
    """Two picks as transformers makes them: who is in the race in float32, weights in float64."""
    rows, ids, weights = np.arange(len(logits)), [], []
    left = logits.copy()
    for _ in range(2):
        pick = left.argmax(axis=1)
        top = left[rows, pick][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            far = (top - logits) / np.maximum(np.abs(logits), top) > np.float32(0.02)
        z = np.where(far, -np.inf, left.astype(np.float64))
        p = np.exp(z - top)
        ids.append(pick)
        weights.append(p[rows, pick] / p.sum(axis=1))
        left[rows, pick] = -np.inf
    return np.stack(ids, axis=1), np.stack(weights, axis=1)


@pytest.mark.parametrize("experts", [2, 3, 8, 16, 17, 37, 500])
@pytest.mark.parametrize("spread", [0.001, 1.0, 30.0])
@pytest.mark.parametrize("mean", [0.0, 4.0, -4.0])
def test_sparsemixer(experts, spread, mean):
    attrs = SPARSEMIXER | {"experts": experts}
    logits = normal(200, experts, seed=experts, spread=spread) + np.float32(mean)
    ids, weights = same_everywhere(lambda x, **o: route(x, attrs, **o), [logits])
    expected_ids, expected = sparsemixed(logits)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(weights, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("logits", "ids", "weights"),
    [
        ([4.0, 1.0, 2.0, 3.0], [0, 3], [1.0, 1.0]),  # nobody within 2 %
        ([1.0, 1.0, 0.0, 0.0], [0, 1], [0.5, 1.0]),  # a tie of two: the second pick is alone
        ([1.0, 1.0, 1.0, 0.0], [0, 1], [1 / 3, 0.5]),
        ([0.0, 0.0, 0.0, 0.0], [0, 1], [1 / 4, 1 / 3]),  # 0 / 0 keeps all
        ([0.0, -1.0, 0.0, -5.0], [0, 2], [0.5, 1.0]),
        ([-1.0, -2.0, -1.0, -1.0], [0, 2], [1 / 3, 0.5]),
        ([-8.0, -8.1, -8.3, -9.0], [0, 1], [1 / (1 + np.exp(-0.1)), 1.0]),  # 1.2 % and 3.6 %
        (
            [100.0, 99.0, 98.5, 97.5],  # within 2 % of 100: all but the last; of 99: all
            [0, 1],
            [1 / (1 + np.exp(-1.0) + np.exp(-1.5)), 1 / (1 + np.exp(-0.5) + np.exp(-1.5))],
        ),
        ([0.01, 0.0, -0.01, -1.0], [0, 1], [1.0, 1.0]),  # 0 is far from a small maximum
        ([5.0, -np.inf, 4.0, -np.inf], [0, 2], [1.0, 1.0]),
    ],
)
def test_sparsemixer_by_hand(logits, ids, weights):
    found_ids, found = route([np.array([logits], np.float32)], SPARSEMIXER | {"experts": 4})
    np.testing.assert_array_equal(found_ids, [ids])
    np.testing.assert_allclose(found, [weights], rtol=3e-6)


def test_sparsemixer_with_many_ties():
    attrs = SPARSEMIXER | {"experts": 12}
    logits = np.round(normal(500, 12, spread=2.0))
    ids, weights = same_everywhere(lambda x, **o: route(x, attrs, **o), [logits])
    expected_ids, expected = sparsemixed(logits)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(weights, expected, rtol=2e-6)


def test_sparsemixer_stays_in_range_whatever_the_logits_are():
    rng = np.random.default_rng(3)
    strange = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0], np.float32)
    logits = np.where(rng.random((300, 16)) < 0.5, rng.choice(strange, (300, 16)), normal(300, 16))
    logits[0], logits[1] = np.nan, -np.inf
    attrs = SPARSEMIXER | {"experts": 16}
    ids, _ = same_everywhere(lambda x, **o: route(x, attrs, **o), [logits.astype(np.float32)])
    assert ids.min() >= 0
    assert ids.max() < 16
    assert (ids[:, 0] != ids[:, 1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"used": 1}, "sparsemixer picks 2"),
        ({"used": 3}, "sparsemixer picks 2"),
        ({"experts": 1}, "used"),
        ({"renormalise": True}, "renormalise"),
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
    ],
)
def test_sparsemixer_is_validated(change, message):
    attrs = SPARSEMIXER | {"experts": 8} | change
    with pytest.raises(PlanError, match=message):
        route([normal(2, attrs["experts"])], attrs)


def test_sparsemixer_has_no_bias():
    with pytest.raises(PlanError, match="bias"):
        route([normal(2, 8)], SPARSEMIXER | {"experts": 8}, normal(8))


# Elementwise


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
def test_add_and_scale_round_once(rows, width):
    a, b = normal(rows, width), normal(rows, width, seed=1)

    def add(inputs, **options):
        return run("Add", {}, inputs, [width], **options)

    def scale(inputs, **options):
        return run("Scale", {"factor": 1.7}, inputs, [width], **options)

    np.testing.assert_array_equal(same_everywhere(add, [a, b])[0], a + b)
    np.testing.assert_array_equal(add([a, b], in_place=True)[0], a + b)
    np.testing.assert_array_equal(same_everywhere(scale, [a])[0], a * np.float32(1.7))
    np.testing.assert_array_equal(scale([a], in_place=True)[0], a * np.float32(1.7))


@pytest.mark.parametrize("width", WIDTHS)
def test_softcap(width):
    x = normal(9, width, spread=40.0)

    def call(inputs, **options):
        return run("Softcap", {"cap": 30.0}, inputs, [width], **options)

    (y,) = same_everywhere(call, [x])
    np.testing.assert_allclose(y, 30 * np.tanh(x.astype(np.float64) / 30), rtol=4e-7)
    np.testing.assert_array_equal(call([x], in_place=True)[0], y)


@pytest.mark.parametrize("isa", ISAS)
def test_softcap_is_accurate_everywhere_and_keeps_the_sign(isa):
    magnitudes = np.exp2(np.linspace(-100, 120, 20_001)).astype(np.float32)
    x = np.concatenate([magnitudes, -magnitudes, [0.0, -0.0, np.inf, -np.inf, np.nan]])[None]
    (y,) = run("Softcap", {"cap": 1.0}, [x], [x.shape[1]], isa=isa)
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float32).astype(np.float64)), rtol=4e-7)
    np.testing.assert_array_equal(np.signbit(y[:, :-1]), np.signbit(x[:, :-1]))


def sigmoid(z):
    return 1 / (1 + np.exp(-z.astype(np.float64)))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("width", "gates"), [*((w, 1) for w in WIDTHS), *((w, w) for w in WIDTHS), (96, 3), (51, 17)]
)
def test_sigmoid_gate(rows, width, gates):
    x, gate = normal(rows, width), normal(rows, gates, seed=1, spread=5.0)

    def call(inputs, **options):
        return run("SigmoidGate", {}, inputs, [width], **options)

    (y,) = same_everywhere(call, [x, gate])
    expected = x * np.repeat(sigmoid(gate), width // gates, axis=1)
    np.testing.assert_allclose(y, expected, rtol=4e-7)
    np.testing.assert_array_equal(call([x, gate], in_place=True)[0], y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 20])
def test_sigmoid_gate_far_from_zero_and_at_it(isa, size):
    gate = np.concatenate([np.linspace(-87, 200, 4001), [0.0, -0.0, -1e30, 1e30, -np.inf, np.inf]])
    gate = gate.astype(np.float32)[None]
    x = np.full((1, size * gate.size), -3.0, np.float32)
    (y,) = run("SigmoidGate", {}, [x, gate], [x.shape[1]], isa=isa)
    with np.errstate(over="ignore"):
        expected = np.repeat(-3 * sigmoid(gate), size, axis=1)
    np.testing.assert_allclose(y, expected, rtol=4e-7)
    halves = y[0, size * 4001 : size * 4003]
    np.testing.assert_array_equal(halves, -1.5)
    (y,) = run("SigmoidGate", {}, [x, np.full_like(gate, np.nan)], [x.shape[1]], isa=isa)
    assert np.isnan(y).all()


def test_gates_divide_the_row():
    with pytest.raises(PlanError, match="4 gates do not divide 10 values"):
        run("SigmoidGate", {}, [normal(2, 10), normal(2, 4)], [10])
    with pytest.raises(PlanError, match="expected 8 values a row, got 9"):
        run("SigmoidGate", {}, [normal(2, 8), normal(2, 4)], [9])


@pytest.mark.parametrize("kind", ["silu", "gelu_tanh", "swiglu_clamped"])
def test_gated_activation_is_the_kernel_that_experts_use(kind):
    gate, up = normal(70, 333, spread=4.0), normal(70, 333, seed=1, spread=4.0)
    attrs = {"activation": kind, "alpha": 1.702, "limit": 7.0}

    def call(inputs, **options):
        return run("GatedActivation", attrs, inputs, [333], **options)

    (y,) = same_everywhere(call, [gate, up])
    expected = kernels.gated_activation(kind, 1.702, 7.0, gate, up, isa=ISAS[0])
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(call([gate, up], in_place=True)[0], expected)


# Rows


@pytest.mark.parametrize("kind", [*FLOATS, *READERS])
@pytest.mark.parametrize("rows", [1, 16, 33])
def test_embedding_decodes_rows_as_gguf_does(kind, rows):
    cols = 512
    rng = np.random.default_rng([rows, kind])
    raw = random_blocks(kind, rows * cols, rng)
    codec = FLOATS[kind][0] if kind in FLOATS else READERS[kind][0]
    table = (codec, rows, cols, encode(kind, raw, rows, cols))
    tokens = rng.integers(0, rows, 50).astype(np.int32)
    tokens[:2] = [0, rows - 1]

    def call(inputs, **options):
        return run("Embedding", {}, inputs, [cols], [table], **options)

    (x,) = same_everywhere(call, [tokens])
    with np.errstate(over="ignore"):
        expected = gguf.quants.dequantize(raw, kind).reshape(rows, cols)
    np.testing.assert_array_equal(x, expected[tokens])


def test_select_rows():
    x = normal(40, 77)
    for wanted in ([0], [39], [3, 4, 30], list(range(40))):
        (y,) = run("SelectRows", {}, [x, np.array(wanted, np.int32)], [77])
        np.testing.assert_array_equal(y, x[wanted])


@pytest.mark.parametrize(
    ("attrs", "weights", "message"),
    [
        ({"eps": 1e-5}, [None, None], "weight 0 is missing"),
        ({"eps": 1e-5}, [np.ones(15), None], r"expected \[16, 1\], got \[15, 1\]"),
        ({"eps": 1e-5}, [np.ones(16), np.ones(32)], r"expected \[16, 1\], got \[32, 1\]"),
        ({"eps": 1e-5}, [np.ones(16)], "expected 2 weights, got 1"),
        ({"eps": -1.0}, [np.ones(16), None], "eps"),
        ({"eps": 1e-5, "groups": 1}, [np.ones(16), None], "unknown attribute"),
        ({}, [np.ones(16), None], "`eps` is missing"),
    ],
)
def test_layer_norm_is_validated(attrs, weights, message):
    with pytest.raises(PlanError, match=message):
        run("LayerNorm", attrs, [normal(1, 16)], [16], [vector(w) for w in weights])


def test_steps_are_validated():
    with pytest.raises(PlanError, match="groups"):
        run("RMSNorm", {"eps": 1e-6, "groups": 3}, [normal(1, 16)], [16], [None])
