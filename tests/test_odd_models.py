"""Models of odd shapes and windows against the float64 oracle, however they are run."""

import math

import numpy as np
import pytest
from conftest import MODELS
from gguf import GGMLQuantizationType as Type
from gguf import quants
from kit.edited_gguf import edited
from kit.tiny_gguf import Tensor
from reference import forward

import moesaic

TOLERANCE = 1e-4  # of the largest logit of a position


def llama(target, rng, *, width, heads, kv_heads, k_dim, v_dim, ff, kind=Type.F32, **keys):
    """A dense llama of one layer with random weights; tokenizer and the rest as in llama-f32."""
    source = MODELS / "llama-f32.gguf"
    vocab = len(forward.Model(source).tensors["token_embd.weight"].data)
    shapes = {
        "token_embd": (vocab, width),
        "blk.0.attn_q": (heads * k_dim, width),
        "blk.0.attn_k": (kv_heads * k_dim, width),
        "blk.0.attn_v": (kv_heads * v_dim, width),
        "blk.0.attn_output": (width, heads * v_dim),
        "blk.0.ffn_gate": (ff, width),
        "blk.0.ffn_up": (ff, width),
        "blk.0.ffn_down": (width, ff),
        "output": (vocab, width),
    }
    tensors = dict.fromkeys(forward.Model(source).tensors)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) * (2 / math.sqrt(shape[-1]))
        data = quants.quantize(values.astype(np.float32), kind).tobytes()
        tensors[f"{name}.weight"] = Tensor(f"{name}.weight", shape, kind, data)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        values = rng.uniform(0.5, 1.5, width).astype(np.float32)
        tensors[f"{name}.weight"] = Tensor.of(f"{name}.weight", values)
    changed = {
        "block_count": 1,
        "embedding_length": width,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": k_dim,
        "attention.value_length": v_dim,
        "rope.dimension_count": k_dim,
    }
    return edited(source, target, {f"llama.{k}": v for k, v in (changed | keys).items()}, tensors)


def check(path, plan, tokens):
    """Logits within the tolerance, and the same bits in other chunks on other threads."""
    moesaic.partition(path, plan, context=128, batch=64, kv_type="f32")
    with moesaic.Runtime(plan, threads=2) as rt:
        found = rt.logits(tokens)
    with moesaic.Runtime(plan, threads=1, batch=7) as rt:
        np.testing.assert_array_equal(rt.logits(tokens).view(np.uint32), found.view(np.uint32))
    judge = forward.logits(path, tokens)
    error = np.abs(found - judge).max(axis=1) / np.abs(judge).max(axis=1)
    assert error.max() <= TOLERANCE


@pytest.mark.parametrize(
    "shape",
    [
        {"width": 50, "heads": 7, "kv_heads": 7, "k_dim": 24, "v_dim": 24, "ff": 33},
        {"width": 60, "heads": 5, "kv_heads": 1, "k_dim": 12, "v_dim": 20, "ff": 17},
        {"width": 33, "heads": 3, "kv_heads": 3, "k_dim": 80, "v_dim": 80, "ff": 96},
        {"width": 64, "heads": 4, "kv_heads": 2, "k_dim": 32, "v_dim": 8, "ff": 1},
        {"width": 50, "heads": 2, "kv_heads": 1, "k_dim": 16, "v_dim": 16, "ff": 37}
        | {"kind": Type.F16},
        {"width": 49, "heads": 2, "kv_heads": 2, "k_dim": 18, "v_dim": 18, "ff": 21}
        | {"kind": Type.BF16},
        {"width": 40, "heads": 2, "kv_heads": 1, "k_dim": 32, "v_dim": 32, "ff": 40}
        | {"rope.dimension_count": 10},
    ],
)
def test_odd_shapes(tmp_path, shape):
    rng = np.random.default_rng(30)
    path = llama(tmp_path / "x.gguf", rng, **shape)
    check(path, tmp_path / "plan", rng.integers(0, 256, 70).tolist())


@pytest.mark.parametrize("window", [1, 31, 32, 33, 64, 4000])
@pytest.mark.parametrize("case", ["gpt-oss-f32", "gemma3-f32"])
def test_windows_at_the_edges_of_pages(tmp_path, case, window):
    family = case.removesuffix("-f32")
    key = f"{family}.attention.sliding_window"
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", {key: window})
    check(path, tmp_path / "plan", np.load(MODELS / f"{case}.npz")["tokens"].tolist())


@pytest.mark.parametrize("sink", [-1e4, -100.0, 100.0])
def test_sinks_of_any_size(tmp_path, sink):
    source = MODELS / "gpt-oss-f32.gguf"
    names = [name for name in forward.Model(source).tensors if name.endswith("attn_sinks.weight")]
    tensors = {name: Tensor.of(name, np.full(4, sink, np.float32)) for name in names}
    path = edited(source, tmp_path / "x.gguf", tensors=tensors)
    check(path, tmp_path / "plan", np.load(MODELS / "gpt-oss-f32.npz")["tokens"].tolist())
