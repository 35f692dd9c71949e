"""Split models: the parts together are the model that was split."""

import json
import os
import shutil

import gguf
import numpy as np
import pytest
from conftest import MODELS
from kit.split_gguf import part_path, split

import moesaic
from moesaic.errors import ModelError
from moesaic.partitioner.gguf import read_gguf

SOURCE = MODELS / "mixtral-all-q5_0.gguf"


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1], [0, 7], [7, 0], [10**6]])
def test_parts_hold_the_tensors_of_the_whole(tmp_path, sizes):
    whole, parts = read_gguf(SOURCE), read_gguf(split(SOURCE, tmp_path, sizes))
    assert list(parts.tensors) == list(whole.tensors)
    for name in whole.tensors:
        np.testing.assert_array_equal(parts.data(name), whole.data(name))
        np.testing.assert_array_equal(parts.dequantize(name), whole.dequantize(name))
    count = len(sizes) + 1
    assert parts.files == [part_path(tmp_path, n, count) for n in range(1, count + 1)]
    assert parts.path == parts.files[0]
    assert parts.nbytes == sum(path.stat().st_size for path in parts.files)
    assert parts.architecture == whole.architecture
    assert set(whole.metadata) < set(parts.metadata)


@pytest.mark.parametrize("metadata_only", [False, True])
def test_parts_written_by_the_gguf_package(tmp_path, metadata_only):
    values = {f"t{i}": np.full((4, 8), i, np.float32) for i in range(6)}
    writer = gguf.GGUFWriter(
        tmp_path / "judge.gguf", "llama", split_max_tensors=2, small_first_shard=metadata_only
    )
    writer.add_block_count(3)
    for name, array in values.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    count = 4 if metadata_only else 3
    model = read_gguf(part_path(tmp_path, 1, count, "judge"))
    assert len(model.files) == count
    assert model.hyper.int("block_count") == 3
    for name, array in values.items():
        np.testing.assert_array_equal(model.dequantize(name), array)


def test_a_split_model_gives_the_same_plan(tmp_path):
    first = split(SOURCE, tmp_path, [4, 9])
    moesaic.partition(SOURCE, tmp_path / "whole", kv_type="f32")
    moesaic.partition(first, tmp_path / "parts", kv_type="f32")
    whole, parts = ((tmp_path / name / "weights.bin").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    source = json.loads((tmp_path / "parts" / "plan.json").read_text())["source"]
    assert source["file"] == "model-00001-of-00003.gguf"
    paths = [part_path(tmp_path, n, 3) for n in (1, 2, 3)]
    assert source["bytes"] == sum(path.stat().st_size for path in paths)
    with moesaic.Runtime(tmp_path / "whole") as a, moesaic.Runtime(tmp_path / "parts") as b:
        np.testing.assert_array_equal(a.logits([1, 5, 9]), b.logits([1, 5, 9]))


def test_a_cache_of_links_serves_as_well(tmp_path):
    """Hugging Face's cache: links with the right names to files with others, in another folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    split(SOURCE, tmp_path, [4, 9])
    for number in (1, 2, 3):
        path = part_path(tmp_path, number, 3)
        shutil.move(path, blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../blobs/{number:064x}")
    assert len(read_gguf(part_path(snapshot, 1, 3)).tensors) == len(read_gguf(SOURCE).tensors)


def test_a_relative_path(tmp_path, monkeypatch):
    split(SOURCE, tmp_path, [3])
    monkeypatch.chdir(tmp_path)
    assert read_gguf("model-00001-of-00002.gguf").tensors


def test_alignment_is_a_part_s_own(tmp_path):
    first = split(SOURCE, tmp_path, [3], keys={2: {"general.alignment": 16}})
    assert len(read_gguf(first).tensors) == len(read_gguf(SOURCE).tensors)


def test_one_part_is_a_whole_model(tmp_path):
    first = split(SOURCE, tmp_path, [])
    plain = shutil.copy(first, tmp_path / "any name.gguf")
    assert read_gguf(plain).files == [plain]


def test_identity_covers_every_part(tmp_path):
    first = split(SOURCE, tmp_path, [4, 9])
    identity = read_gguf(first).identity()
    assert read_gguf(first).identity() == identity
    for number in (2, 3):
        path = part_path(tmp_path, number, 3)
        data = path.read_bytes()
        name = max(
            (t for t in read_gguf(first).tensors.values() if t.path == path),
            key=lambda t: t.offset,
        )
        middle = name.offset + name.nbytes // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        assert read_gguf(first).identity() != identity
        path.write_bytes(data)
    assert read_gguf(first).identity() == identity


@pytest.mark.parametrize("number", [2, 3])
def test_another_part_than_the_first_names_it(tmp_path, number):
    split(SOURCE, tmp_path, [4, 9], stem="big-model.Q4_K_M")
    path = part_path(tmp_path, number, 3, "big-model.Q4_K_M")
    with pytest.raises(ModelError, match=rf"split\.no.*part {number} of 3") as error:
        read_gguf(path)
    assert "big-model.Q4_K_M-00001-of-00003.gguf" in str(error.value.hint)
    renamed = shutil.copy(path, tmp_path / "second.gguf")
    with pytest.raises(ModelError, match=rf"part {number} of 3") as error:
        read_gguf(renamed)
    assert "00001" in str(error.value.hint)


def test_a_renamed_first_part_says_how_parts_are_called(tmp_path):
    first = split(SOURCE, tmp_path, [4])
    for name in ("model.gguf", "model-00001-of-00003.gguf", "model-00002-of-00002.gguf"):
        path = tmp_path / "other" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(first, path)
        with pytest.raises(ModelError, match=r"split\.count.*-00001-of-00002\.gguf") as error:
            read_gguf(path)
        assert name in str(error.value)
        assert error.value.hint


def test_a_missing_part_is_named(tmp_path):
    first = split(SOURCE, tmp_path, [4, 9])
    os.remove(part_path(tmp_path, 3, 3))
    with pytest.raises(ModelError, match=r"model-00003-of-00003\.gguf: no such file") as error:
        read_gguf(first)
    assert "folder" in str(error.value.hint)


def test_the_plan_cache_notices_a_change_in_a_further_part(tmp_path, monkeypatch):
    monkeypatch.setenv("MOESAIC_CACHE", str(tmp_path / "cache"))
    first = split(SOURCE, tmp_path, [4, 9])

    def logits():
        with moesaic.Runtime(first) as rt:
            return rt.logits([1, 5, 9])

    before = logits()
    assert [entry.source for entry in moesaic.plan_cache.entries()] == [first]
    name = "output_norm.weight"
    info = read_gguf(first).tensor(name)
    assert info.path != first
    data = bytearray(info.path.read_bytes())
    twice = 2 * np.frombuffer(data, np.float32, info.nbytes // 4, info.offset)
    data[info.offset : info.offset + info.nbytes] = twice.tobytes()
    info.path.write_bytes(data)
    assert not np.array_equal(logits(), before)
