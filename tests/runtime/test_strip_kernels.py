"""Strip kernels against float64 NumPy, and against each other bit for bit."""

import numpy as np
import pytest
from kit.activations import product, quantisation_bound, quantise
from kit.strip_bytes import CODECS, FLOAT_CODECS, INTEGER_CODECS, Strips, random_strips
from numpy.typing import NDArray

from moesaic.runtime._native import kernels

ISAS = kernels.isas()
TOKENS = (1, 2, 3, 7, 12, 13, 31, 64)
ROWS = (1, 15, 16, 17, 33)


def columns(codec: str) -> tuple[int, ...]:
    if codec in FLOAT_CODECS:
        return (1, 7, 32, 333, 1441)
    return (256, 512, 2816) if "super" in codec else (32, 96, 256, 2880)


CASES = [(codec, cols) for codec in CODECS for cols in columns(codec)]


def activations(rng: np.random.Generator, tokens: int, cols: int) -> NDArray[np.float32]:
    """Rows of very different magnitudes, with outliers, exact zeros and a block of zeros."""
    x = rng.standard_normal((tokens, cols)) * np.exp2(rng.integers(-8, 8, (tokens, 1)))
    x[rng.random(x.shape) < 0.01] *= 30
    x[rng.random(x.shape) < 0.05] = 0
    x[0, : min(32, cols)] = 0
    return x.astype(np.float32)


def matmul(strips: Strips, x: NDArray[np.float32], **options: object) -> NDArray[np.float32]:
    options.setdefault("isa", ISAS[-1])
    return kernels.matmul(strips.codec, strips.bytes(), strips.rows, strips.cols, x, **options)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("codec", "cols"), CASES)
def test_product_matches_float64(codec: str, cols: int, isa: str) -> None:
    rng = np.random.default_rng([len(codec), cols])
    for rows in ROWS:
        strips = random_strips(rng, codec, rows, cols)
        for tokens in TOKENS if rows == 17 else (1, 5):
            x = activations(rng, tokens, cols)
            result = matmul(strips, x, isa=isa, threads=2)
            expected, rounding = product(strips, x)
            assert np.all(np.abs(result - expected) <= rounding)  # sure, but wide
            lengths = np.linalg.norm(x, axis=1), np.linalg.norm(strips.weights(), axis=1)
            assert np.all(np.abs(result - expected) <= 1e-6 * np.outer(*lengths) + 1e-44)
            plain = x.astype(np.float64) @ strips.weights().T
            allowed = quantisation_bound(strips, x) + 2 * rounding
            assert np.all(np.abs(result - plain) <= allowed)


@pytest.mark.parametrize(("codec", "cols"), CASES)
def test_same_bits_however_it_is_computed(codec: str, cols: int) -> None:
    rng = np.random.default_rng([7, len(codec), cols])
    strips = random_strips(rng, codec, 83, cols)
    x = activations(rng, 38, cols)
    expected = matmul(strips, x)
    for isa in ISAS:
        for largest_panel in (1, 2, 5, 12):
            for threads in (1, 3):
                options = {"isa": isa, "largest_panel": largest_panel, "threads": threads}
                assert matmul(strips, x, **options).tobytes() == expected.tobytes(), options
    for part in (slice(0, 1), slice(5, 18), slice(20, 38)):
        assert matmul(strips, x[part].copy()).tobytes() == expected[part].tobytes()


@pytest.mark.parametrize("tokens", range(1, 13))
@pytest.mark.parametrize("codec", CODECS)
def test_every_panel_size(codec: str, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    strips = random_strips(rng, codec, 70, 256)
    x = activations(rng, tokens, 256)
    expected = matmul(strips, x, isa="generic")
    for isa in ISAS:
        assert matmul(strips, x, isa=isa).tobytes() == expected.tobytes()


EXTREME_SCALE = {
    "u2_super_min": 255,  # 15 for scale and minimum
    "u3_super": -32,
    "u4_super_min": 63,
    "u5_super_min": 63,
    "u6_super": -128,
    "u4_super_nl": -128,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x0F, 0xF0, 0x80, 0x7F])
@pytest.mark.parametrize("codec", INTEGER_CODECS)
def test_extreme_codes_do_not_overflow(codec: str, byte: int, isa: str) -> None:
    strips = random_strips(np.random.default_rng(0), codec, 16, 256)
    strips.code[:] = byte
    if codec == "u4_e8m0_fp4":
        strips.scale[:] = 128
    elif strips.supers.size:
        strips.supers[:] = 1
        strips.scale[:] = EXTREME_SCALE[codec]
    else:
        strips.scale[:] = 1
    alternating = np.where(np.arange(256) % 2, 127, -127)
    x = np.stack([np.full(256, 127), np.full(256, -127), alternating]).astype(np.float32)
    result = matmul(strips, x, isa=isa)
    expected = x.astype(np.float64) @ strips.weights().T
    exact = codec not in ("u6_super", "u4_super_nl")  # times 128 some sums do not fit float32
    assert np.all(np.abs(result - expected) <= (0 if exact else 1e-7 * np.abs(expected)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", ["u3_super", "u2_super_min"])
def test_every_code_times_every_inner_scale(codec: str, isa: str) -> None:
    codes = np.arange(8 if codec == "u3_super" else 4)[:, None]
    scales = np.arange(-32, 32) if codec == "u3_super" else np.arange(256)
    scales = scales.reshape(-1, 16)
    strips = random_strips(np.random.default_rng(0), codec, len(codes) * scales.size, 256)
    strips.supers[:] = 1
    strips.code[:, :, :128] = np.repeat(0x55 * (codes & 3), len(scales))[:, None, None]
    strips.code[:, :, 128:] = np.repeat(0xFF * (codes >> 2), len(scales))[:, None, None]
    strips.scale[:, :, :16] = np.tile(scales, (len(codes), 1))[:, None]
    strips.scale[:, :, 16:] = np.tile(scales[::-1, ::-1], (len(codes), 1))[:, None]
    x = np.zeros((32, 256), np.float32)
    x[np.arange(32), np.arange(32)] = 127  # every column of the first block alone
    assert np.array_equal(matmul(strips, x, isa=isa), x @ strips.weights().T)


@pytest.mark.parametrize("isa", ISAS)
def test_e8m0_is_exact_to_both_ends(isa: str) -> None:
    exponents = np.array([0, 1, 2, 3, 4, 63, 64, 126, 127, 128, 129, 200, 252, 253, 254, 255])
    strips = random_strips(np.random.default_rng(0), "u4_e8m0_fp4", 16, 32)
    strips.code[:] = 0x22  # the value 2
    strips.scale[:] = exponents
    x = np.zeros((1, 32), np.float32)
    x[0, 3] = 127 * 2.0**-10
    expected = np.ldexp(254.0, exponents - 138)
    assert np.array_equal(matmul(strips, x, isa=isa)[0].astype(np.float64), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", [c for c in INTEGER_CODECS if c != "u4_e8m0_fp4"])
def test_subnormal_half_scales(codec: str, isa: str) -> None:
    rng = np.random.default_rng(3)
    strips = random_strips(rng, codec, 16, 256)
    halves = strips.supers if strips.supers.size else strips.scale
    bits = rng.integers(1, 0x400, halves.shape) | rng.choice([0, 0x8000], halves.shape)
    halves[:] = bits.astype(np.uint16).view(np.float16)
    x = activations(rng, 3, 256)
    expected, rounding = product(strips, x)
    assert np.all(np.abs(matmul(strips, x, isa=isa) - expected) <= rounding)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", CODECS)
def test_non_finite_activations_stay_in_their_row(codec: str, isa: str) -> None:
    rng = np.random.default_rng(4)
    strips = random_strips(rng, codec, 40, 256)
    x = activations(rng, 14, 256)
    x[:, 77] = np.abs(x[:, 77]) + 1
    expected = matmul(strips, x)
    dirty = x.copy()
    dirty[2, 77], dirty[5, 77], dirty[9, 77] = np.nan, np.inf, -np.inf
    result = matmul(strips, dirty, isa=isa)
    bad = np.isin(np.arange(14), [2, 5, 9])
    assert result[~bad].tobytes() == expected[~bad].tobytes()
    assert not np.isfinite(result[bad]).any()
    if codec in INTEGER_CODECS:
        assert np.isnan(result[bad]).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", INTEGER_CODECS)
def test_nothing_times_a_matrix_is_zero(codec: str, isa: str) -> None:
    strips = random_strips(np.random.default_rng(5), codec, 17, 256)
    x = np.zeros((2, 256), np.float32)
    x[1] = 1e-38  # 127 / amax would be infinite
    assert not matmul(strips, x, isa=isa).any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", ["f32", "u8_f16"])
def test_bias_is_added_last(codec: str, isa: str) -> None:
    rng = np.random.default_rng(6)
    strips = random_strips(rng, codec, 33, 96)
    x = activations(rng, 15, 96)
    bias = rng.standard_normal(33).astype(np.float32)
    expected = matmul(strips, x, isa=isa) + bias
    assert matmul(strips, x, isa=isa, bias=bias).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tokens", [1, 2, 5, 12])
def test_panels_hold_what_the_format_says(tokens: int, isa: str) -> None:
    rng = np.random.default_rng(tokens)
    x = activations(rng, tokens, 320)
    x[0, 64:96] = rng.integers(-5, 6, 32) / 2  # ties: half-way codes
    x[0, 64] = 63.5
    panel = kernels.quantise(x, isa=isa).view(np.int32).reshape(10, 12, tokens)
    model = quantise(x)
    codes = panel[:, :8].transpose(2, 0, 1).copy().view(np.int8).reshape(tokens, 320)
    assert np.array_equal(codes, model.codes)
    by_block = model.codes.reshape(tokens, 10, 32)
    total = by_block.sum(axis=2)
    scales = panel[:, 8].T.copy().view(np.float32)
    assert np.array_equal(scales, model.scales)
    assert np.array_equal(panel[:, 9].T, -total)
    assert np.array_equal(panel[:, 10].T, -by_block[:, :, :16].sum(axis=2))
    scaled = panel[:, 11].T.copy().view(np.float32)
    assert np.array_equal(scaled, scales * total.astype(np.float32))


def test_wrong_shapes_are_refused() -> None:
    strips = random_strips(np.random.default_rng(0), "u4_f16", 16, 64)
    x = np.zeros((1, 64), np.float32)
    with pytest.raises(Exception, match="no codec"):
        kernels.matmul("u9", strips.bytes(), 16, 64, x, isa="generic")
    with pytest.raises(Exception, match="wrong number of columns"):
        kernels.matmul("u4_f16", strips.bytes(), 16, 60, x, isa="generic")
    with pytest.raises(Exception, match="wrong size"):
        kernels.matmul("u4_f16", strips.bytes()[:-1], 16, 64, x, isa="generic")
    with pytest.raises(Exception, match="wrong width"):
        matmul(strips, np.zeros((1, 32), np.float32))
