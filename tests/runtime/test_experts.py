"""The experts of a layer: against float64, against its parts, and bit for bit however it is run."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from kit.strip_bytes import Strips, random_strips
from numpy.typing import NDArray

from moesaic.runtime._native import kernels

ISAS = kernels.isas()
ALPHA, LIMIT = 1.702, 7.0
Floats = NDArray[np.float32]
# Codecs of gate, up and down, the width of x and the hidden width.
LAYERS = [
    (("u4_e8m0_fp4", "u4_e8m0_fp4", "u4_e8m0_fp4"), 96, 352),
    (("u4_super_min", "u4_super_min", "u6_super"), 256, 512),
    (("u3_super", "u3_super", "u5_super_min"), 256, 512),
    (("u2_super_min", "u4_super_nl", "u3_super"), 512, 256),
    (("u4_f16_min", "u4_f16_nl", "u5_f16_min"), 96, 64),
    (("u8_f16", "u4_f16", "u5_f16"), 64, 96),
    (("f16", "f16", "f16"), 30, 41),
    (("bf16", "u4_f16", "f32"), 64, 33),
    (("u4_f16", "f32", "u8_f16"), 64, 288),
]


@dataclass
class Layer:
    codecs: tuple[str, str, str]
    width: int
    hidden: int
    experts: list[tuple[Strips, Strips, Strips, Floats | None, Floats | None, Floats | None]]
    activation: str = "silu"
    missing: set[int] = field(default_factory=set)

    def run(self, x: Floats, ids: NDArray[np.int32], weights: Floats, **options: object) -> Floats:
        options.setdefault("isa", ISAS[-1])
        parts = [
            None if e in self.missing else (*(m.bytes() for m in expert[:3]), *expert[3:])
            for e, expert in enumerate(self.experts)
        ]
        return kernels.experts(
            parts, list(self.codecs), self.hidden, x, ids, weights,
            self.activation, ALPHA, LIMIT, **options,
        )  # fmt: skip

    def one(self, expert: int, x: Floats, isa: str) -> Floats:
        """Expert of all rows of x, from single kernels."""
        gate, up, down, *biases = self.experts[expert]
        g = product(gate, x, biases[0], isa)
        u = product(up, x, biases[1], isa)
        hidden = kernels.gated_activation(self.activation, ALPHA, LIMIT, g, u, isa=isa)
        return product(down, hidden, biases[2], isa)


def product(strips: Strips, x: Floats, bias: Floats | None, isa: str) -> Floats:
    return kernels.matmul(
        strips.codec, strips.bytes(), strips.rows, strips.cols, x, isa=isa, bias=bias
    )


def layer(
    codecs: tuple[str, str, str], width: int, hidden: int, *, experts: int = 5, biases: bool = False
) -> Layer:
    rng = np.random.default_rng([width, hidden])

    def vector(size: int) -> Floats | None:
        return rng.standard_normal(size).astype(np.float32) if biases else None

    def expert() -> tuple[Strips, Strips, Strips, Floats | None, Floats | None, Floats | None]:
        gate = random_strips(rng, codecs[0], hidden, width)
        up = random_strips(rng, codecs[1], hidden, width)
        down = random_strips(rng, codecs[2], width, hidden)
        return gate, up, down, vector(hidden), vector(hidden), vector(width)

    return Layer(codecs, width, hidden, [expert() for _ in range(experts)])


def routed(
    tokens: int, used: int, width: int, experts: int = 5
) -> tuple[Floats, NDArray[np.int32], Floats]:
    rng = np.random.default_rng([tokens, used])
    x = (rng.standard_normal((tokens, width)) * 0.2).astype(np.float32)
    ids = np.stack([rng.permutation(experts)[:used] for _ in range(tokens)]).astype(np.int32)
    return x, ids, rng.random((tokens, used)).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("codecs", "width", "hidden"), LAYERS)
def test_one_slot_is_its_expert(
    codecs: tuple[str, str, str], width: int, hidden: int, biases: bool, isa: str
) -> None:
    some = layer(codecs, width, hidden, biases=biases)
    some.activation = "swiglu_clamped" if biases else "silu"
    x, ids, _ = routed(29, 1, width)
    result = some.run(x, ids, np.ones((29, 1), np.float32), isa=isa, threads=2)
    for e in range(5):
        mine = ids[:, 0] == e
        assert result[mine].tobytes() == some.one(e, x, isa)[mine].tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("codecs", "width", "hidden"), LAYERS)
def test_slots_are_added_by_weight(
    codecs: tuple[str, str, str], width: int, hidden: int, isa: str
) -> None:
    some = layer(codecs, width, hidden, biases=True)
    x, ids, weights = routed(40, 3, width)
    result = some.run(x, ids, weights, isa=isa, threads=2)
    outs = np.stack([some.one(e, x, isa) for e in range(5)]).astype(np.float64)
    terms = outs[ids, np.arange(40)[:, None]] * weights[:, :, None].astype(np.float64)
    assert np.all(np.abs(result - terms.sum(1)) <= 3 * 2.0**-24 * np.abs(terms).sum(1))


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "swiglu_clamped"])
@pytest.mark.parametrize("isa", ISAS)
def test_float_experts_match_float64(isa: str, activation: str) -> None:
    some = layer(("f32", "f16", "bf16"), 30, 41, biases=True)
    some.activation = activation
    x, ids, weights = routed(20, 2, 30)
    result = some.run(x, ids, weights, isa=isa)
    expected = np.zeros((20, 30))
    for t in range(20):
        for slot in range(2):
            gate, up, down, *biases = some.experts[ids[t, slot]]
            g = gate.weights() @ x[t] + biases[0]
            u = up.weights() @ x[t] + biases[1]
            expected[t] += weights[t, slot] * (down.weights() @ gated(activation, g, u) + biases[2])
    assert np.all(np.abs(result - expected) <= 2e-6 * np.abs(expected).max())


def gated(kind: str, g: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "silu":
        return g / (1 + np.exp(-g)) * u
    if kind == "gelu_tanh":
        return g / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3))) * u
    g, u = np.minimum(g, LIMIT), np.clip(u, -LIMIT, LIMIT)
    return g / (1 + np.exp(-ALPHA * g)) * (u + 1)


@pytest.mark.parametrize(("codecs", "width", "hidden"), LAYERS)
def test_same_bits_however_it_is_run(codecs: tuple[str, str, str], width: int, hidden: int) -> None:
    some = layer(codecs, width, hidden)
    x, ids, weights = routed(61, 3, width)
    expected = some.run(x, ids, weights)
    for isa in ISAS:
        for threads in (1, 2, 5):
            again = some.run(x, ids, weights, isa=isa, threads=threads)
            assert again.tobytes() == expected.tobytes()
    for part in (slice(0, 1), slice(3, 4), slice(10, 15), slice(30, 61)):
        alone = some.run(x[part].copy(), ids[part].copy(), weights[part].copy(), threads=2)
        assert alone.tobytes() == expected[part].tobytes()


@pytest.mark.parametrize("isa", ISAS)
def test_experts_of_others_count_for_nothing(isa: str) -> None:
    some = layer(("u4_f16", "u4_f16", "u8_f16"), 64, 96, biases=True)
    x, ids, weights = routed(17, 2, 64)
    some.missing = {1, 2, 4}
    result = some.run(x, ids, weights, isa=isa, threads=2)
    weights[np.isin(ids, [1, 2, 4])] = 0
    outs = np.stack([some.one(e, x, isa) for e in range(5)]).astype(np.float64)
    terms = outs[ids, np.arange(17)[:, None]] * weights[:, :, None].astype(np.float64)
    assert np.all(np.abs(result - terms.sum(1)) <= 2.0**-23 * np.abs(terms).sum(1))
    assert np.isin(ids, [1, 2, 4]).all(axis=1).any()  # some row has no expert here: it is zero
    some.missing = set(range(5))
    assert not some.run(x, ids, weights, isa=isa).any()


def test_all_rows_to_one_expert() -> None:
    some = layer(("u4_e8m0_fp4",) * 3, 96, 352)
    x, _, _ = routed(130, 1, 96)
    ids = np.full((130, 1), 3, np.int32)
    result = some.run(x, ids, np.ones((130, 1), np.float32), threads=2)
    assert result.tobytes() == some.one(3, x, ISAS[-1]).tobytes()
