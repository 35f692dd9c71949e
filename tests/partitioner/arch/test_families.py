"""Every family: its graph has the promised names and types, and bad files are refused."""

from pathlib import Path

import gguf
import numpy as np
import onnx_ir as ir
import pytest
from conftest import MODELS
from kit.edited_gguf import edited
from kit.tiny_gguf import Tensor

from moesaic.errors import ModelError
from moesaic.partitioner.arch import build_model, families
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS
from moesaic.partitioner.ops import DOMAIN, OPERATORS

ATTENTION = ["attn/q_proj", "attn/k_proj", "attn/v_proj", "attn/q_rope", "attn/k_rope"]
AFTER = ["attn/attention", "attn/o_proj", "attn_residual", "ffn_norm"]
LLAMA = ["attn_norm", *ATTENTION, *AFTER]
MLP = ["mlp/gate_proj", "mlp/up_proj", "mlp/activation", "mlp/down_proj", "ffn_residual"]
MOE = ["moe/router", "moe/route", "moe/experts", "ffn_residual"]
NORMED = ["attn_norm", *ATTENTION[:3], "attn/q_norm", "attn/k_norm", *ATTENTION[3:], *AFTER]
SHARED = [
    *("moe/router", "shared/gate_proj", "shared/up_proj", "moe/route", "shared/activation"),
    *("shared/down_proj", "moe/experts", "shared/add", "ffn_residual"),
]
GATED = [
    *(*SHARED[:3], "shared/router", *SHARED[3:6], "shared/gate", *SHARED[6:]),
]
SCALED = [*ATTENTION, *AFTER[:2], "attn_scale", *AFTER[2:]]
LAYER = {
    "llama-f32": [*LLAMA, *MLP],
    "mixtral-f32": [*LLAMA, *MOE],
    "gpt-oss-f32": [*LLAMA, *MOE],
    "phimoe-f32": [*LLAMA, *MOE],
    "deepseek-f32": [*LLAMA, *SHARED],
    "qwen2-f32": [*LLAMA, *MLP],
    "qwen2moe-f32": [*LLAMA, *GATED],
    "qwen2moe-dense-norm-f16": [*LLAMA, *MLP],
    "qwen3-f32": [*NORMED, *MLP],
    "qwen3moe-f32": [*NORMED, *MOE],
    "olmoe-f32": [*NORMED, *MOE],
    "granite-f32": ["attn_norm", *SCALED, *MLP[:-1], "ffn_scale", "ffn_residual"],
    "granitemoe-f32": ["attn_norm", *SCALED, *MOE[:-1], "ffn_scale", "ffn_residual"],
    "gemma3-f32": [
        "attn_norm",
        *ATTENTION[:3],
        "attn/q_norm",
        "attn/k_norm",
        *ATTENTION[3:],
        *AFTER[:2],
        "post_attn_norm",
        *AFTER[2:],
        *MLP[:-1],
        "post_ffn_norm",
        "ffn_residual",
    ],
}


def supported(path: Path) -> bool:
    return all(t.type in MATRIX_CODECS for t in read_gguf(path).tensors.values())


CASES = [path.stem for path in sorted(MODELS.glob("*.gguf")) if supported(path)]


def model(case: str):
    return build_model(read_gguf(MODELS / f"{case}.gguf"))


def nodes(built) -> dict[str, ir.Node]:
    return {str(node.name): node for node in built.graph.graph}


def error_of(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        build_model(read_gguf(path))
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("case", LAYER)
def test_a_layer_has_the_promised_nodes_in_order(case):
    names = [name for name in nodes(model(case)) if name.startswith("/layers.1/")]
    assert names == [f"/layers.1/{name}" for name in LAYER[case]]


@pytest.mark.parametrize("case", CASES)
def test_every_value_is_named_and_typed(case):
    built = model(case)
    graph = built.graph.graph
    for node in graph:
        assert node.domain == DOMAIN
        assert len(node.outputs) == len(OPERATORS[node.op_type].outputs)
        for value in node.outputs:
            assert value.dtype is not None
            assert value.shape is not None
        if node.op_type not in ("Attention",) and node.outputs[0].name != "logits":
            assert node.outputs[0].name == f"{node.name}/output_0"


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_outputs_have_genai_names(case):
    built = model(case)
    graph, layers = built.graph.graph, built.facts.layers
    caches = [f"{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    past = [f"past_key_values.{name}" for name in caches]
    assert [v.name for v in graph.inputs] == ["input_ids", "attention_mask", *past]
    assert [v.name for v in graph.outputs] == ["logits", *(f"present.{name}" for name in caches)]
    logits = graph.outputs[0]
    assert logits.dtype == ir.DataType.FLOAT
    assert logits.shape[-1] == built.facts.vocab_size
    assert {v.dtype for v in graph.outputs[1:]} == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("case", CASES)
def test_every_node_has_its_placement_class(case):
    for name, node in nodes(model(case)).items():
        parts = name.split("/")
        kind = node.metadata_props["layer_ann"]
        if parts[1].startswith("layers."):
            layer = parts[1].split(".")[1]
            family = "experts" if name.endswith("moe/experts") else "dense"
            assert kind == f"{family}.{layer}"
        else:
            assert kind == ("embed" if parts[1].startswith(("embed", "positions")) else "head")


@pytest.mark.parametrize("case", CASES)
def test_weights_are_uint8_in_one_external_file(case):
    built = model(case)
    tensors = {tensor.name: tensor for tensor in built.tensors}
    initializers = built.graph.graph.initializers
    assert set(initializers) == set(tensors)
    end = 0
    for name, tensor in tensors.items():
        data = initializers[name].const_value
        assert isinstance(data, ir.ExternalTensor)
        assert (data.location, data.offset, data.length) == (
            "weights.bin",
            tensor.offset,
            tensor.bytes,
        )
        assert data.dtype == ir.DataType.UINT8
        assert tensor.offset % 4096 == 0
        assert tensor.offset >= end
        end = tensor.offset + tensor.bytes


def test_a_graph_reads_back_as_it_was_built(tmp_path):
    built = model("gpt-oss-mxfp4")
    ir.save(built.graph, tmp_path / "model.onnx")
    again = ir.load(tmp_path / "model.onnx")
    assert ir.to_proto(again) == ir.to_proto(built.graph)


# Families --------------------------------------------------------------------------------------


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path):
    path = edited(MODELS / "llama-f32.gguf", tmp_path / "x.gguf", {"general.architecture": "mamba"})
    with pytest.raises(ModelError, match="'mamba' is not supported") as caught:
        build_model(read_gguf(path))
    assert families() == [
        *("deepseek", "gemma3", "gpt-oss", "granite", "granitemoe", "llama", "olmoe", "phimoe"),
        *("qwen2", "qwen2moe", "qwen3", "qwen3moe"),
    ]
    assert all(name in str(caught.value.hint) for name in families())


@pytest.mark.parametrize("name", ["_blocks", "gpt_oss", "__init__", "llama.x"])
def test_the_name_of_a_module_is_not_a_family(tmp_path, name):
    path = edited(MODELS / "llama-f32.gguf", tmp_path / "x.gguf", {"general.architecture": name})
    error_of(path)


def test_gpt_oss_alternates_windows_from_layer_0():
    built = model("gpt-oss-f32")
    window = read_gguf(MODELS / "gpt-oss-f32.gguf").hyper.u32("attention.sliding_window")
    found = [
        nodes(built)[f"/layers.{i}/attn/attention"].attributes["window"].value for i in range(3)
    ]
    assert found == [window, 0, window]


def test_gemma3_has_a_full_layer_in_six_and_two_rope_tables():
    built = nodes(model("gemma3-f32"))
    windows, tables = [], []
    for i in range(7):
        windows.append(built[f"/layers.{i}/attn/attention"].attributes["window"].value > 0)
        tables.append(built[f"/layers.{i}/attn/q_rope"].inputs[2].name)
    assert windows == [True] * 5 + [False, True]
    assert tables == ["rope.inv_freq_swa" if w else "rope.inv_freq" for w in windows]


def test_phimoe_has_a_window_only_below_its_context(tmp_path):
    source = MODELS / "phimoe-f32.gguf"
    for window, expected in ((4096, 0), (4095, 4095), (30, 30), (None, 0)):
        path = edited(source, tmp_path / "x.gguf", {"phimoe.attention.sliding_window": window})
        attention = nodes(build_model(read_gguf(path)))["/layers.1/attn/attention"]
        assert attention.attributes["window"].value == expected


def test_a_tied_head_is_the_embedding():
    built = nodes(model("llama-tied-f32"))
    assert built["/lm_head"].inputs[1] is built["/embed"].inputs[1]


def test_windows_can_be_listed_by_layer(tmp_path):
    path = edited(
        MODELS / "gemma3-f32.gguf",
        tmp_path / "x.gguf",
        {"gemma3.attention.sliding_window_pattern": [False, True, False, True, True, False, True]},
    )
    built = nodes(build_model(read_gguf(path)))
    windows = [built[f"/layers.{i}/attn/attention"].attributes["window"].value for i in range(7)]
    assert [w > 0 for w in windows] == [False, True, False, True, True, False, True]


def test_gemma3_27b_scales_scores_by_the_width_of_its_stream(tmp_path):
    source = MODELS / "gemma3-f32.gguf"
    reader = gguf.GGUFReader(source)
    layer = [t for t in reader.tensors if t.name.startswith("blk.0.")]
    more = {}
    for i in range(7, 62):
        for t in layer:
            name = t.name.replace("blk.0.", f"blk.{i}.")
            more[name] = Tensor(
                name, [int(n) for n in t.shape][::-1], t.tensor_type, t.data.tobytes()
            )
    path = edited(source, tmp_path / "x.gguf", {"gemma3.block_count": 62}, more)
    node = nodes(build_model(read_gguf(path)))["/layers.0/attn/attention"]
    hyper = read_gguf(path).hyper
    width = hyper.u32("embedding_length") / hyper.u32("attention.head_count")
    assert node.attributes["scale"].value == np.float32(width**-0.5)


FUSED = ["llama-bias-f32", "phimoe-f32", "qwen2-f32", "qwen3moe-f32", "granite-f32", "olmoe-f32"]


@pytest.mark.parametrize("case", FUSED)
def test_fused_projections_are_the_rows_of_one_tensor(tmp_path, case):
    """attn_qkv and its bias give the same packed weights as three tensors and their biases."""
    source = MODELS / f"{case}.gguf"
    reader = {t.name: t for t in gguf.GGUFReader(source).tensors}
    changes = {}
    for kind in ("weight", "bias"):
        for layer in range(2):
            names = [f"blk.{layer}.attn_{x}.{kind}" for x in "qkv"]
            if names[0] not in reader:
                continue
            values = np.concatenate([reader[name].data for name in names])
            fused = f"blk.{layer}.attn_qkv.{kind}"
            changes |= dict.fromkeys(names) | {fused: Tensor.of(fused, values)}
    path = edited(source, tmp_path / "x.gguf", tensors=changes)
    built, expected = build_model(read_gguf(path)), build_model(read_gguf(source))
    assert built.tensors == expected.tensors
    for a, b in zip(built.sources, expected.sources, strict=True):
        assert _bytes(a) == _bytes(b), a.name


def _bytes(source):
    """The encoded rows of all parts of a weight."""
    return [
        _read(blocks, part.rows * part.cols * 4) for part in source.parts for blocks in part.records
    ]


def _read(blocks, size):
    if isinstance(blocks.data, Path):
        return blocks.data.read_bytes()[blocks.offset :][:size]
    return blocks.data.tobytes()


# Bad files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("llama-f32", "llama.block_count"),
        ("llama-f32", "llama.embedding_length"),
        ("llama-f32", "llama.context_length"),
        ("llama-f32", "llama.attention.head_count"),
        ("llama-f32", "llama.feed_forward_length"),
        ("llama-f32", "llama.attention.layer_norm_rms_epsilon"),
        ("mixtral-f32", "llama.expert_used_count"),
        ("gpt-oss-f32", "gpt-oss.attention.sliding_window"),
        ("gpt-oss-f32", "gpt-oss.expert_feed_forward_length"),
        ("gpt-oss-f32", "gpt-oss.expert_count"),
        ("gemma3-f32", "gemma3.attention.sliding_window"),
        ("phimoe-f32", "phimoe.expert_count"),
        ("phimoe-f32", "phimoe.feed_forward_length"),
        ("deepseek-f32", "deepseek.expert_count"),
        ("deepseek-f32", "deepseek.expert_used_count"),
        ("deepseek-f32", "deepseek.expert_shared_count"),
        ("deepseek-f32", "deepseek.expert_feed_forward_length"),
        ("deepseek-f32", "deepseek.feed_forward_length"),
        ("qwen2-f32", "qwen2.feed_forward_length"),
        ("qwen2moe-f32", "qwen2moe.expert_count"),
        ("qwen3moe-f32", "qwen3moe.expert_count"),
        ("olmoe-f32", "olmoe.expert_count"),
        ("olmoe-f32", "olmoe.feed_forward_length"),
        ("granitemoe-f32", "granitemoe.logit_scale"),
        ("granite-f32", "granite.feed_forward_length"),
    ],
)
def test_a_missing_key_is_named(tmp_path, case, key):
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", {key: None})
    message = error_of(path)
    assert key in message
    assert "missing" in message


@pytest.mark.parametrize(
    ("case", "key", "value"),
    [
        ("llama-f32", "llama.block_count", 0),
        ("llama-f32", "llama.block_count", 1 << 31),
        ("llama-f32", "llama.context_length", 0),
        ("llama-f32", "llama.attention.head_count_kv", 3),
        ("llama-f32", "llama.attention.head_count_kv", [1, 1, 1]),
        ("llama-f32", "llama.attention.layer_norm_rms_epsilon", 0.0),
        ("llama-f32", "llama.attention.layer_norm_rms_epsilon", float("nan")),
        ("llama-f32", "llama.attention.causal", False),
        ("llama-f32", "llama.rope.dimension_count", 7),
        ("llama-f32", "llama.rope.dimension_count", 4096),
        ("llama-f32", "llama.rope.freq_base", 0.5),
        ("llama-f32", "llama.rope.scaling.type", "dynamic"),
        ("llama-f32", "llama.embedding_length", 4),
        ("mixtral-f32", "llama.expert_used_count", 0),
        ("mixtral-f32", "llama.expert_used_count", 7),
        ("mixtral-f32", "llama.expert_gating_func", 2),
        ("mixtral-f32", "llama.expert_group_count", 2),
        ("llama-f32", "llama.logit_scale", 0.25),
        ("gemma3-f32", "gemma3.attn_logit_softcapping", 50.0),
        ("gpt-oss-f32", "gpt-oss.rope.freq_base_swa", 1e4),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.factor", -2.0),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.yarn_beta_fast", 0.5),
        ("gemma3-f32", "gemma3.attention.sliding_window", 0),
        ("phimoe-f32", "phimoe.expert_used_count", 1),
        ("phimoe-f32", "phimoe.expert_gating_func", 2),
        ("phimoe-f32", "phimoe.expert_weights_norm", True),
        ("phimoe-f32", "phimoe.expert_weights_scale", 2.0),
        ("phimoe-f32", "phimoe.rope.scaling.original_context_length", 0),
        ("phimoe-f32", "phimoe.rope.scaling.original_context_length", 1),
        ("phimoe-f32", "phimoe.rope.scaling.mscale", 0.0),
        ("phimoe-f32", "phimoe.rope.scaling.mscale", float("nan")),
        ("gemma3-f32", "gemma3.attention.sliding_window_pattern", [True, False]),
        ("gemma3-f32", "gemma3.embedding_scale", 2.0),
        ("mixtral-f32", "llama.attention.scale", -1.0),
        ("mixtral-f32", "llama.attention.sliding_window", 128),
        ("mixtral-f32", "llama.nextn_predict_layers", 2),
        ("deepseek-f32", "deepseek.leading_dense_block_count", 2),
        ("deepseek-f32", "deepseek.expert_gating_func", 2),
        ("qwen2moe-f32", "qwen2moe.expert_gating_func", 4),
        ("qwen2moe-f32", "qwen2moe.expert_weights_norm", 1),
        ("qwen2moe-f32", "qwen2moe.expert_group_count", 4),
        ("qwen2moe-f32", "qwen2moe.expert_used_count", [2, 3]),
        ("qwen2-f32", "qwen2.attention.sliding_window", [16]),
        ("qwen3moe-f32", "qwen3moe.router_logit_softcapping", 30.0),
        ("qwen3moe-f32", "qwen3moe.interleave_moe_layer_step", 2),
        ("olmoe-f32", "olmoe.attention.clamp_kqv", 8.0),
        ("olmoe-f32", "olmoe.attention.clamp_kqv", [8.0]),
        ("olmoe-f32", "olmoe.logit_scale", 2.0),
        ("olmoe-f32", "olmoe.leading_dense_block_count", 1),
        ("olmoe-f32", "olmoe.nextn_predict_layers", 1),
        ("olmoe-f32", "olmoe.attention.value_scale", 2.0),
        ("gpt-oss-f32", "gpt-oss.expert_weights_scale", 2.5),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.factor", None),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.yarn_attn_factor", 0.0),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.yarn_ext_factor", 0.5),
        ("gpt-oss-f32", "gpt-oss.rope.scaling.yarn_log_multiplier", 0.1),
        ("phimoe-f32", "phimoe.rope.scaling.type", "su"),
        ("granite-f32", "granite.residual_scale", -0.5),
        ("granite-f32", "granite.final_logit_softcapping", 30.0),
        ("granitemoe-f32", "granitemoe.embedding_scale", float("inf")),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, case, key, value):
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", {key: value})
    assert key in error_of(path)


REQUIRED = sorted(
    (case, name)
    for case in (
        *("llama-f32", "mixtral-f32", "mixtral-split-f16", "gpt-oss-f32", "gemma3-f32"),
        *("phimoe-f32", "deepseek-f32", "qwen2moe-f32", "olmoe-f32", "granitemoe-shared-f16"),
    )
    for name in read_gguf(MODELS / f"{case}.gguf").tensors
    if name.startswith("blk.1.") or "blk" not in name
)
OPTIONAL = {"rope_freqs.weight", "output.bias"}


@pytest.mark.parametrize(("case", "name"), REQUIRED)
def test_a_missing_tensor_is_named(tmp_path, case, name):
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", tensors={name: None})
    tied = name == "output.weight" and case != "gpt-oss-f32"
    if tied or name in OPTIONAL:
        build_model(read_gguf(path))
    else:
        message = error_of(path)
        # without its first expert a tensor looks merged, and the merged one is missing
        assert name in message or name.replace(".0.weight", "_exps.weight") in message


@pytest.mark.parametrize(("case", "name"), REQUIRED)
def test_a_tensor_of_another_shape_is_named(tmp_path, case, name):
    source = MODELS / f"{case}.gguf"
    shape = [*read_gguf(source).tensors[name].shape]
    shape[-1] += 1
    wrong = Tensor.of(name, np.zeros(shape, np.float32))
    path = edited(source, tmp_path / "x.gguf", tensors={name: wrong})
    message = error_of(path)
    assert "shape" in message or "rows" in message
    assert name in message


@pytest.mark.parametrize("case", ["llama-f32", "mixtral-f32", "gpt-oss-f32", "gemma3-f32"])
@pytest.mark.parametrize("name", ["blk.0.attn_gate.weight", "output_norm.bias", "mtp.weight"])
def test_an_unexpected_tensor_is_named(tmp_path, case, name):
    extra = Tensor.of(name, np.zeros((4, 32), np.float32))
    path = edited(MODELS / f"{case}.gguf", tmp_path / "x.gguf", tensors={name: extra})
    message = error_of(path)
    assert name in message
    assert "unexpected" in message


def test_a_quantised_vector_is_refused(tmp_path):
    name = "blk.0.attn_norm.weight"
    source = MODELS / "llama-q8_0.gguf"
    (length,) = read_gguf(source).tensors[name].shape
    quantised = Tensor(name, [length], gguf.GGMLQuantizationType.Q8_0, bytes(length // 32 * 34))
    path = edited(source, tmp_path / "x.gguf", tensors={name: quantised})
    assert name in error_of(path)


def test_a_type_without_codec_is_named(tmp_path):
    name = "blk.0.ffn_down.weight"
    source = MODELS / "llama-q8_0.gguf"
    rows, cols = read_gguf(source).tensors[name].shape
    kind = gguf.GGMLQuantizationType.I8
    path = edited(
        source,
        tmp_path / "x.gguf",
        tensors={name: Tensor(name, [rows, cols], kind, bytes(rows * cols))},
    )
    message = error_of(path)
    assert name in message
    assert "I8" in message


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    rows = read_gguf(MODELS / "llama-f32.gguf").tensors["token_embd.weight"].shape[0]
    tokens = [f"t{i}" for i in range(rows + 1)]
    path = edited(MODELS / "llama-f32.gguf", tmp_path / "x.gguf", {"tokenizer.ggml.tokens": tokens})
    assert "tokenizer.ggml.tokens" in error_of(path)
