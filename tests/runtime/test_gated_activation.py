"""Gated activations against float64, and the same bits on every instruction set."""

import numpy as np
import pytest
from numpy.typing import NDArray

from moesaic.runtime._native import kernels

KINDS = ("silu", "gelu_tanh", "swiglu_clamped")
ALPHA, LIMIT = np.float32(1.702), np.float32(7.0)
Float64 = NDArray[np.float64]


def reference(
    kind: str, gate: NDArray[np.float32], up: NDArray[np.float32]
) -> tuple[Float64, Float64]:
    """The result and |gate · up| in float64."""
    g, u = gate.astype(np.float64), up.astype(np.float64)
    if kind == "silu":
        h = g
    elif kind == "gelu_tanh":
        h = 2 * np.sqrt(2 / np.pi) * (g + 0.044715 * g**3)
    else:
        g, u = np.minimum(g, LIMIT), np.clip(u, -float(LIMIT), float(LIMIT)) + 1
        h = float(ALPHA) * g
    with np.errstate(over="ignore"):
        return g / (1 + np.exp(-h)) * u, np.abs(g * u)


def run(
    kind: str, gate: NDArray[np.float32], up: NDArray[np.float32], isa: str
) -> NDArray[np.float32]:
    return kernels.gated_activation(kind, ALPHA, LIMIT, gate, up, isa=isa)


def samples() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    gate = rng.standard_normal((7, 30011)) * 10.0 ** rng.integers(-6, 4, (7, 1))
    gate[0] = rng.uniform(-110, 95, gate.shape[1])
    return gate.astype(np.float32), (2 * rng.standard_normal(gate.shape)).astype(np.float32)


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("kind", KINDS)
def test_accuracy(kind: str, isa: str) -> None:
    gate, up = samples()
    result = run(kind, gate, up, isa)
    expected, product = reference(kind, gate, up)
    error = np.abs(result - expected)
    assert np.all(error <= 1e-6 * product + 1e-44)
    if kind != "gelu_tanh":
        normal = np.abs(expected) > 1e-35  # below, 1 + exp may be infinite and the result 0
        assert np.all(error[normal] <= 1e-6 * np.abs(expected[normal]))


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("kind", KINDS)
def test_limits(kind: str, isa: str) -> None:
    infinity = np.inf
    gate = np.array([[infinity, 3e38, 1e5, -infinity, -3e38, -1e5, np.nan, 1.0]], np.float32)
    up = np.array([[1.0, 0.5, 0.5, 2.0, 2.0, 2.0, 1.0, np.nan]], np.float32)
    result = run(kind, gate, up, isa)[0]
    if kind == "swiglu_clamped":
        assert np.allclose(result[:3], [14.0, 10.5, 10.5], rtol=1e-5)
    else:
        assert np.array_equal(result[:3], [infinity, np.float32(3e38) / 2, 5e4])
    assert np.array_equal(result[3:6], [0, 0, 0])
    assert np.isnan(result[6:]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_on_every_instruction_set(kind: str) -> None:
    gate, up = samples()
    expected = run(kind, gate, up, "generic")
    for isa in kernels.isas():
        for n in (1, 15, 16, 17, 1000):
            part = run(kind, gate[:, :n].copy(), up[:, :n].copy(), isa)
            assert part.tobytes() == expected[:, :n].tobytes()
