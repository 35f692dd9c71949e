"""The benchmark's synthetic models: valid files with the published numbers and sane logits."""

import dataclasses
import importlib
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from reference import forward

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def synthetic(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("synthetic")


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("synthetic_blocks")


def small(synthetic, name, **sizes):
    return dataclasses.replace(synthetic.MODELS[name], **sizes)


GPT_OSS = {"layers": 2, "width": 96, "heads": 4, "kv_heads": 2, "ff": 64, "experts": 6}
MIXTRAL = {"layers": 2, "width": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "ff": 256}


def test_gpt_oss_20b_has_the_published_numbers(synthetic):
    model = synthetic.MODELS["gpt-oss-20b"]
    tensors = list(model.tensors(model))
    assert len(tensors) == 459
    assert Counter(t.kind for t in tensors) == {Type.F32: 289, Type.Q8_0: 98, Type.MXFP4: 72}
    assert sum(np.prod(t.shape, dtype=np.int64) for t in tensors) == 20_914_757_184
    experts = 3 * 24 * 32 * 2880 * 2880
    dense = 2 * 201088 * 2880 + 24 * 2 * (4096 + 512) * 2880
    rest = 20_914_757_184 - experts - dense
    assert synthetic.data_bytes(model) == experts * 17 // 32 + dense * 34 // 32 + rest * 4


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("gpt-oss-20b", GPT_OSS | {"vocab": 1888}),
        ("mixtral-8x7b", MIXTRAL | {"vocab": 800}),
    ],
)
def test_a_small_one_opens_and_gives_sane_logits(synthetic, tmp_path, name, sizes):
    model = small(synthetic, name, **sizes)
    path = tmp_path / "small.gguf"
    synthetic.write(model, path)
    reader = gguf.GGUFReader(path)
    planned = {t.name: t for t in model.tensors(model)}
    assert [t.name for t in reader.tensors] == list(planned)
    for t in reader.tensors:
        assert tuple(reversed(t.shape)) == planned[t.name].shape
        assert t.tensor_type == planned[t.name].kind
        values = gguf.quants.dequantize(t.data, t.tensor_type)
        assert np.isfinite(values).all()
        if t.tensor_type != Type.F32:
            assert np.std(values) == pytest.approx(planned[t.name].sigma, rel=0.5)
    last = reader.tensors[-1]
    assert path.stat().st_size == last.data_offset + synthetic.padded(last.n_bytes)
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == model.vocab
    y = forward.logits(path, np.arange(300, 340))
    assert np.isfinite(y).all()
    assert 0.5 < y.std() < 20
    assert len(set(y.argmax(axis=1))) > 5
    assert [p.name for p in tmp_path.iterdir()] == ["small.gguf"]


class Recorder:
    """Stands in for GGUFWriter: keeps what each add_X was given."""

    def __init__(self):
        self.added = {}

    def __getattr__(self, name):
        return lambda value: self.added.update({name: value})


def test_gpt_oss_special_ids(synthetic):
    model = synthetic.MODELS["gpt-oss-20b"]
    recorder = Recorder()
    model.metadata(recorder, model)
    tokens = recorder.added["add_token_list"]
    assert len(tokens) == len(set(tokens)) == len(recorder.added["add_token_types"]) == 201088
    named = ("startoftext", "endoftext", "return", "channel", "start", "end", "message", "call")
    ids = [tokens.index(f"<|{n}|>") for n in named]
    assert ids == [199998, 199999, 200002, 200005, 200006, 200007, 200008, 200012]
    assert recorder.added["add_eos_token_id"] == 200002
    assert tokens[201087] == "[PAD201087]"


def test_every_merge_joins_known_tokens(synthetic):
    vocabulary = importlib.import_module("synthetic_vocabulary")
    recorder = Recorder()
    vocabulary.byte_level(recorder, 199_998, "gpt-4o", 199_998, {})
    tokens = recorder.added["add_token_list"]
    known = set(tokens[:256])
    for merge, joined in zip(recorder.added["add_token_merges"], tokens[256:], strict=True):
        a, b = merge.split(" ")
        assert {a, b} <= known
        assert a + b == joined
        known.add(joined)
    assert len(known) == 199_998


@pytest.mark.parametrize("sigma", [0.003, 0.02, 1.0])
def test_blocks_have_the_spread_that_was_asked_for(blocks, sigma):
    rng = np.random.default_rng(3)
    for kind in blocks.MAKERS:
        raw = blocks.random_blocks(kind, 4000, sigma, rng)
        x = gguf.quants.dequantize(raw.view(np.float32) if kind == Type.F32 else raw, kind)
        tolerance = 0.45 if kind == Type.MXFP4 else 0.1  # powers of two only
        assert np.isfinite(x).all(), kind
        assert x.std() == pytest.approx(sigma, rel=tolerance), kind
        assert abs(x.mean()) < 0.1 * sigma, kind


def test_a_stream_goes_on_where_it_stopped(blocks):
    stream = blocks.BlockStream()
    chunk = b"".join(stream.read(Type.MXFP4, 0.02, 1 << 20) for _ in range(20))
    again = blocks.BlockStream()
    parts = bytearray()
    while len(parts) < len(chunk):
        parts += again.read(Type.MXFP4, 0.02, min(99_991, len(chunk) - len(parts)))
    assert bytes(parts) == chunk
    assert np.isfinite(gguf.quants.dequantize(_whole_blocks(chunk, 17), Type.MXFP4)).all()


def _whole_blocks(data, size):
    whole = len(data) // size * size
    return np.frombuffer(data[:whole], np.uint8).reshape(-1, size)
