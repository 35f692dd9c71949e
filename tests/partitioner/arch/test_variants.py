"""What a file may state beside its family's usual form: routing, widths, multipliers, windows."""

import gguf
import numpy as np
import onnx_ir as ir
import pytest
from conftest import MODELS
from kit.edited_gguf import edited
from kit.tiny_gguf import Tensor

import moesaic
from moesaic.errors import ModelError
from moesaic.partitioner.arch import build_model
from moesaic.partitioner.gguf import read_gguf


def nodes(built) -> dict[str, ir.Node]:
    return {str(node.name): node for node in built.graph.graph}


def error_of(path) -> str:
    with pytest.raises(ModelError) as caught:
        build_model(read_gguf(path))
    return str(caught.value)


def model(case: str):
    return build_model(read_gguf(MODELS / f"{case}.gguf"))


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("case", ["mixtral", "deepseek", "qwen2moe", "qwen3moe", "olmoe"])
def test_files_may_say_whether_weights_are_normalised(tmp_path, case, stated):
    family = "llama" if case == "mixtral" else case
    keys = {f"{family}.expert_weights_norm": stated, f"{family}.expert_weights_scale": 2.5}
    path = edited(MODELS / f"{case}-f32.gguf", tmp_path / "x.gguf", keys)
    route = nodes(build_model(read_gguf(path)))["/layers.1/moe/route"].attributes
    assert route["renormalise"].value == stated
    assert route["scale"].value == 2.5


@pytest.mark.parametrize(
    ("value", "gating"), [(0, "softmax"), (1, "softmax"), (3, "softmax_selected")]
)
def test_files_may_say_how_experts_are_gated(tmp_path, value, gating):
    keys = {"qwen3moe.expert_gating_func": value}
    path = edited(MODELS / "qwen3moe-f32.gguf", tmp_path / "x.gguf", keys)
    route = nodes(build_model(read_gguf(path)))["/layers.0/moe/route"].attributes
    assert route["gating"].value == gating


@pytest.mark.parametrize("family", ["qwen2moe", "qwen3moe"])
def test_widths_that_a_file_leaves_out(tmp_path, family):
    """The experts of a token are as wide together as a dense MLP, and so is a shared expert."""
    source, width = MODELS / f"{family}-f32.gguf", 20 * 3
    keys = {f"{family}.feed_forward_length": width, f"{family}.expert_feed_forward_length": None}
    built = build_model(read_gguf(edited(source, tmp_path / "x.gguf", keys)))
    assert nodes(built)["/layers.0/moe/experts"].attributes["rows"].value[0] == 20
    if family == "qwen2moe":
        keys |= {f"{family}.expert_shared_feed_forward_length": None}
        assert "blk.0.ffn_gate_shexp.weight" in error_of(edited(source, tmp_path / "y.gguf", keys))
        keys = {
            f"{family}.feed_forward_length": 28,
            f"{family}.expert_shared_feed_forward_length": None,
        }
        build_model(read_gguf(edited(source, tmp_path / "z.gguf", keys)))


def test_a_gate_may_have_a_further_axis(tmp_path):
    name, source = "blk.1.ffn_gate_inp_shexp.weight", MODELS / "qwen2moe-f32.gguf"
    gate = read_gguf(source).dequantize(name)
    path = edited(source, tmp_path / "x.gguf", tensors={name: Tensor.of(name, gate[None])})
    assert build_model(read_gguf(path)).tensors == model("qwen2moe-f32").tensors


def test_a_window_as_long_as_the_context_is_none(tmp_path):
    keys = {"llama.attention.sliding_window": 4096}
    path = edited(MODELS / "mixtral-f32.gguf", tmp_path / "x.gguf", keys)
    attention = nodes(build_model(read_gguf(path)))["/layers.0/attn/attention"]
    assert attention.attributes["window"].value == 0


def test_granite_has_factors_where_a_file_states_them(tmp_path):
    keys = dict.fromkeys(
        ["granite.embedding_scale", "granite.residual_scale", "granite.attention.scale"]
    )
    source = MODELS / "granite-f32.gguf"
    plain = nodes(build_model(read_gguf(edited(source, tmp_path / "x.gguf", keys))))
    assert [name for name in plain if name.endswith("scale")] == ["/logit_scale"]
    assert plain["/layers.0/attn/attention"].attributes["scale"].value == np.float32(8**-0.5)
    scaled = nodes(model("granite-f32"))
    factors = {
        name: node.attributes["factor"].value
        for name, node in scaled.items()
        if node.op_type == "Scale" and ".1" not in name
    }
    assert factors == {
        "/embed_scale": 2.0,
        "/layers.0/attn_scale": np.float32(0.8),
        "/layers.0/ffn_scale": np.float32(0.8),
        "/logit_scale": 0.25,
    }
    assert scaled["/layers.0/attn/attention"].attributes["scale"].value == np.float32(0.35)


def test_blocks_that_predict_further_tokens_are_left_out(tmp_path):
    source = MODELS / "qwen3moe-f32.gguf"
    tensors = {}
    for t in gguf.GGUFReader(source).tensors:
        if t.name.startswith("blk.1."):
            name = t.name.replace("blk.1.", "blk.2.")
            tensors[name] = Tensor(name, t.shape[::-1], t.tensor_type, t.data.tobytes())
    tensors["blk.2.nextn.eh_proj.weight"] = Tensor.of("x", np.zeros((36, 72), np.float32))
    tensors["blk.2.nextn.eh_proj.weight"].name = "blk.2.nextn.eh_proj.weight"
    keys = {"qwen3moe.block_count": 3, "qwen3moe.nextn_predict_layers": 1}
    built = build_model(read_gguf(edited(source, tmp_path / "x.gguf", keys, tensors)))
    assert built.tensors == model("qwen3moe-f32").tensors
    assert built.facts.layers == 2
    beyond = {"blk.3.attn_norm.weight": Tensor.of("blk.3.attn_norm.weight", np.zeros(36, "f4"))}
    path = edited(source, tmp_path / "y.gguf", keys, tensors | beyond)
    assert "'blk.3.attn_norm.weight': unexpected" in error_of(path)


def scaled(tmp_path, case, *names, value=0.5):
    tensors = {name: Tensor.of(name, np.array([value], np.float32)) for name in names}
    return edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", tensors=tensors)


def test_the_scale_of_a_weight_multiplies_its_product(tmp_path):
    names = [f"blk.1.{tensor}.scale" for tensor in ("attn_q", "ffn_down_shexp", "attn_output")]
    path = scaled(tmp_path, "deepseek-f32", *names, "blk.0.ffn_up.input_scale")
    built = nodes(build_model(read_gguf(path)))
    factors = {n: node.attributes["factor"].value for n, node in built.items() if "scale" in n}
    expected = ("attn/q_proj", "attn/o_proj", "shared/down_proj")
    assert factors == {f"/layers.1/{name}_scale": 0.5 for name in expected}
    assert built["/layers.1/attn/q_rope"].inputs[0].name == "/layers.1/attn/q_proj_scale/output_0"


def test_a_scaled_weight_gives_the_logits_of_the_weight_times_the_scale(tmp_path):
    name, source = "blk.0.ffn_down.weight", MODELS / "qwen3-f32.gguf"
    half = Tensor.of(name, read_gguf(source).dequantize(name) / 2)
    path = scaled(tmp_path, "qwen3-f32", "blk.0.ffn_down.scale")
    logits = []
    for model_path in (path, edited(source, tmp_path / "y.gguf", tensors={name: half})):
        moesaic.partition(model_path, tmp_path / "plan", kv_type="f32", force=True)
        with moesaic.Runtime(tmp_path / "plan") as rt:
            logits.append(rt.logits([1, 2, 3]))
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


def test_a_scale_of_one_is_none(tmp_path):
    path = scaled(tmp_path, "qwen2-f32", "blk.0.attn_q.scale", "blk.0.ffn_up.scale", value=1)
    assert list(nodes(build_model(read_gguf(path)))) == list(nodes(model("qwen2-f32")))


@pytest.mark.parametrize(
    ("case", "name", "value"),
    [
        ("qwen2-f32", "blk.0.attn_q.scale", 0.5),
        ("qwen3moe-f32", "blk.1.ffn_down_exps.scale", 0.5),
        ("qwen3-f32", "blk.1.ffn_down.scale", np.nan),
        ("qwen3-f32", "output.scale", 0.5),
    ],
)
def test_scales_that_are_not_supported_are_named(tmp_path, case, name, value):
    assert f"tensor '{name}'" in error_of(scaled(tmp_path, case, name, value=value))


@pytest.mark.parametrize("case", ["qwen2-f32", "qwen2moe-f32", "phimoe-f32", "llama-bias-f32"])
def test_biases_are_in_all_layers_or_in_none(tmp_path, case):
    source = MODELS / f"{case}.gguf"
    biases = [t for t in read_gguf(source).tensors if ".attn_" in t and t.endswith("_q.bias")]
    path = edited(source, tmp_path / "x.gguf", tensors={biases[-1]: None})
    assert biases[-1] in error_of(path)
    path = edited(source, tmp_path / "y.gguf", tensors=dict.fromkeys(biases))
    assert biases[0] in error_of(path)  # keys have one
    every = [t for t in read_gguf(source).tensors if ".attn_" in t and ".bias" in t]
    every = [t for t in every if "norm" not in t]
    build_model(read_gguf(edited(source, tmp_path / "z.gguf", tensors=dict.fromkeys(every))))
