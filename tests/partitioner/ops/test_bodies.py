"""Function bodies of one-node models in plain ONNX Runtime, against the NumPy twin in float64."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from gguf import GGMLQuantizationType as Q
from kit.blocks import tame_blocks
from reference import strips

from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS
from moesaic.partitioner.ops import DOMAIN, bodies
from moesaic.partitioner.ops.body import OPSET
from moesaic.partitioner.plan.codecs import record_layout
from moesaic.plan_format import Part

KINDS = pytest.mark.parametrize("kind", MATRIX_CODECS, ids=[kind.name for kind in MATRIX_CODECS])
F32, I32, I64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def model(function, activations, weights, attributes) -> ir.Model:
    """One node: its activations are inputs (name: type and rank), its weights initializers."""
    inputs = [
        ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([None] * rank))
        for name, (dtype, rank) in activations.items()
    ]
    initializers = [
        ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.UINT8),
            const_value=ir.tensor(array, name=name),
        )
        for name, array in weights.items()
    ]
    node = ir.Node(
        DOMAIN,
        function.name,
        [*inputs, *initializers],
        [ir.convenience.convert_attribute(k, v) for k, v in attributes.items()],
        overload=function.overload,
        name="/node",
    )
    (y,) = node.outputs
    y.name, y.type, y.shape = "y", ir.TensorType(F32), ir.Shape([None] * 3)
    opsets = {"": OPSET, DOMAIN: 1}
    graph = ir.Graph(
        inputs,
        node.outputs,
        nodes=[node],
        initializers=initializers,
        opset_imports=opsets,
        name="one",
    )
    return ir.Model(graph, ir_version=10, functions=[function])


def session(built: ir.Model, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if optimized:
        options.optimized_model_filepath = str(optimized)
    proto = ir.to_proto(built)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(built: ir.Model, **feeds) -> np.ndarray:
    return session(built).run(None, feeds)[0]


def packed(kind, rows, cols, rng):
    raw = tame_blocks(kind, rows * cols, rng)
    data = strips.encode(kind, raw, rows, cols)
    return data, strips.decode(MATRIX_CODECS[kind], data, rows, cols)


def vector(values) -> np.ndarray:
    return strips.encode(Q.F32, values.astype(np.float32).view(np.uint8), len(values), 1)


def linear(kind, rows, cols, weight, bias=None) -> ir.Model:
    function = bodies.linear_function(MATRIX_CODECS[kind], rows, cols, bias=bias is not None)
    weights = {"weight": weight} | ({} if bias is None else {"bias": bias})
    attributes = {"codec": MATRIX_CODECS[kind], "rows": rows, "cols": cols}
    return model(function, {"x": (F32, 3)}, weights, attributes)


@KINDS
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("rows", [1, 16, 100])
def test_linear(kind, rows, rounds, rng, monkeypatch):
    cols = 512
    if rounds > 1:
        monkeypatch.setattr(bodies, "DECODED_BYTES", 4 * cols * 16 * 3)
    data, weight = packed(kind, rows, cols, rng)
    data = np.pad(data, (0, 4096))  # a large tensor ends in padding
    bias = rng.standard_normal(rows)
    built = linear(kind, rows, cols, data, vector(bias))
    x = rng.standard_normal((2, 3, cols)).astype(np.float32)
    y = run(built, x=x)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    scale = np.abs(x) @ np.abs(weight.T) + np.abs(bias)
    assert y.shape == exact.shape
    assert np.all(np.abs(y - exact) <= 1e-5 * scale)


@KINDS
def test_weights_are_decoded_exactly(kind, rng):
    data, weight = packed(kind, 40, 256, rng)
    x = np.eye(256, dtype=np.float32)[None]
    y = run(linear(kind, 40, 256, data), x=x)
    assert np.array_equal(y[0].T, weight)


def test_every_finite_half_is_exact():
    bits = np.arange(1 << 16, dtype=np.uint16)
    raw = bits[bits & 0x7C00 != 0x7C00].view(np.uint8)
    data = strips.encode(Q.F16, raw, raw.size // 2, 1)
    y = run(linear(Q.F16, raw.size // 2, 1, data), x=np.ones((1, 1, 1), np.float32))
    assert np.array_equal(y.reshape(-1), raw.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", [Q.F32, Q.BF16])
def test_floats_of_every_exponent_are_exact(kind, rng):
    bits = rng.integers(0, 1 << 32, 4096, np.uint32)
    bits = bits[bits & 0x7F800000 != 0x7F800000]
    bits[:6] = 0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF
    raw = bits.view(np.uint8) if kind == Q.F32 else (bits >> 16).astype(np.uint16).view(np.uint8)
    data = strips.encode(kind, raw, bits.size, 1)
    y = run(linear(kind, bits.size, 1, data), x=np.ones((1, 1, 1), np.float32))
    assert np.array_equal(y.reshape(-1, 1), strips.decode(MATRIX_CODECS[kind], data, bits.size, 1))


@KINDS
def test_embedding(kind, rng):
    data, table = packed(kind, 50, 256, rng)
    attributes = {"codec": MATRIX_CODECS[kind], "rows": 50, "cols": 256}
    function = bodies.embedding_function(*attributes.values())
    built = model(function, {"input_ids": (I64, 2)}, {"table": data}, attributes)
    ids = np.array([[0, 15, 16], [49, 31, 0]])
    assert np.array_equal(run(built, input_ids=ids), table[ids])


def experts_model(parts: list[Part], stack, used, kind, alpha=0.0, limit=0.0) -> ir.Model:
    function = bodies.experts_function(parts, used=used, kind=kind, alpha=alpha, limit=limit)
    attributes = {
        "experts": len(stack),
        "used": used,
        "activation": kind,
        "alpha": alpha,
        "limit": limit,
        "roles": [p.role for p in parts],
        "offsets": [p.offset for p in parts],
        "codecs": [p.codec for p in parts],
        "rows": [p.rows for p in parts],
        "cols": [p.cols for p in parts],
    }
    activations = {"x": (F32, 3), "ids": (I32, 3), "weights": (F32, 3)}
    return model(function, activations, {"stack": stack}, attributes)


def stack_of(kinds, experts, dim, width, *, bias, rng):
    """Returns (parts, uint8 [experts, stride], decoded values by role and expert)."""
    shapes = {"gate": (width, dim), "up": (width, dim), "down": (dim, width)}
    specs = [(r, MATRIX_CODECS[k], *s) for (r, s), k in zip(shapes.items(), kinds, strict=True)]
    if bias:
        specs += [(f"{r}_bias", "f32", s[0], 1) for r, s in shapes.items()]
    parts, stride = record_layout(specs)
    stack = np.zeros((experts, stride), np.uint8)
    values = {part.role: [] for part in parts}
    for record in stack:
        for part, kind in zip(parts, [*kinds, *[None] * 3], strict=False):
            if kind is None:
                decoded = rng.standard_normal(part.rows)
                data = vector(decoded)
            else:
                data, decoded = packed(kind, part.rows, part.cols, rng)
            record[part.offset : part.offset + len(data)] = data
            values[part.role].append(decoded.astype(np.float64))
    return parts, stack, values


def activate(kind, gate, up, alpha, limit):
    if kind == "silu":
        return gate / (1 + np.exp(-gate)) * up
    if kind == "gelu_tanh":
        inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
        return gate / 2 * (1 + np.tanh(inner)) * up
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate / (1 + np.exp(-alpha * gate)) * (up + 1)


def experts_in_float64(values, x, ids, weights, kind, alpha, limit):
    y = np.zeros(x.shape)
    for place in np.ndindex(*ids.shape):
        e, row = ids[place], x[place[:-1]].astype(np.float64)
        bias = {r: values.get(f"{r}_bias", {e: 0})[e] for r in ("gate", "up", "down")}
        gate = values["gate"][e] @ row + bias["gate"]
        up = values["up"][e] @ row + bias["up"]
        hidden = activate(kind, gate, up, alpha, limit)
        y[place[:-1]] += weights[place] * (values["down"][e] @ hidden + bias["down"])
    return y


@pytest.mark.parametrize(
    ("kinds", "kind", "bias"),
    [
        ((Q.MXFP4, Q.MXFP4, Q.MXFP4), "swiglu_clamped", True),
        ((Q.Q4_K, Q.Q4_K, Q.Q6_K), "silu", False),
        ((Q.Q8_0, Q.Q5_0, Q.Q4_0), "gelu_tanh", False),
        ((Q.F32, Q.F16, Q.BF16), "silu", True),
    ],
)
@pytest.mark.parametrize("tokens", [(1, 1), (2, 9)])
def test_experts(kinds, kind, bias, tokens, rng):
    experts, used, dim, width = 6, 2, 256, 512
    parts, stack, values = stack_of(kinds, experts, dim, width, bias=bias, rng=rng)
    built = experts_model(parts, stack, used, kind, alpha=1.702, limit=7.0)
    x = (0.01 * rng.standard_normal((*tokens, dim))).astype(np.float32)  # gates of about 1
    ids = rng.permuted(np.tile(np.arange(experts - 1), (*tokens, 1)), axis=-1)[..., :used]
    weights = rng.random((*tokens, used), np.float32)
    y = run(built, x=x, ids=ids.astype(np.int32), weights=weights)
    exact = experts_in_float64(values, x, ids, weights, kind, 1.702, 7.0)
    assert np.abs(y - exact).max() <= 1e-5 * np.abs(exact).max()


@KINDS
def test_decoded_weights_are_not_folded_into_the_session(kind, tmp_path, rng):
    data, _ = packed(kind, 512, 512, rng)
    optimized = tmp_path / "optimized.onnx"
    session(linear(kind, 512, 512, data), optimized)
    constants = ir.load(optimized).graph.initializers.values()
    sizes = sorted(c.const_value.nbytes for c in constants)
    assert sizes[-1] == data.nbytes
    assert sum(sizes[:-1]) < 20_000


def test_overloads_tell_bodies_apart():
    names = {
        bodies.linear_function("u4_f16", 32, 64, bias=False).overload,
        bodies.linear_function("u4_f16", 32, 64, bias=True).overload,
        bodies.linear_function("u4_f16", 64, 32, bias=True).overload,
        bodies.linear_function("u5_f16", 32, 64, bias=True).overload,
    }
    assert len(names) == 4


def test_the_model_survives_a_round_trip(tmp_path, rng):
    data, weight = packed(Q.Q4_0, 20, 64, rng)
    ir.save(linear(Q.Q4_0, 20, 64, data), tmp_path / "model.onnx")
    built = ir.load(tmp_path / "model.onnx")
    y = run(built, x=np.eye(64, dtype=np.float32)[None])
    assert np.array_equal(y[0].T, weight)
