"""Hostile or muddled sets of parts, one test per attack: each is refused, naming file and field."""

import os
import shutil

import numpy as np
import pytest
from conftest import MODELS
from gguf import GGUFValueType as T
from kit import tiny_gguf as tiny
from kit.split_gguf import part_path, split, split_keys

import moesaic
from moesaic.errors import ModelError
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.gguf import split as gguf_split

SOURCE = MODELS / "mixtral-all-q5_0.gguf"
EIGHT = np.arange(8, dtype=np.float32)


def refuse(first, message, *, naming=None):
    """Asserts that a set of parts is refused with a message about the file `naming`."""
    with pytest.raises(ModelError, match=message) as info:
        read_gguf(first)
    assert str(naming or first) in str(info.value)
    assert info.value.hint


def parts(folder, *contents, **keys):
    """Writes parts that hold the tensors of these names; returns the first."""
    total = sum(map(len, contents))
    for number, names in enumerate(contents, 1):
        tensors = [tiny.Tensor.of(name, EIGHT) for name in names]
        own = split_keys(number, len(contents), total) | keys
        own |= {"general.architecture": "llama"} if number == 1 else {}
        tiny.write(part_path(folder, number, len(contents)), own, tensors)
    return part_path(folder, 1, len(contents))


def test_well_formed_parts_pass(tmp_path):
    assert list(read_gguf(parts(tmp_path, ["a"], ["b", "c"])).tensors) == ["a", "b", "c"]


def test_counts_that_contradict_each_other(tmp_path):
    first = split(SOURCE, tmp_path, [4], keys={2: {"split.count": 3}})
    refuse(first, r"'split\.count': expected 2 but got 3", naming=part_path(tmp_path, 2, 2))
    first = split(SOURCE, tmp_path, [4], keys={2: {"split.tensors.count": 3}})
    refuse(first, r"'split\.tensors\.count': is '3', but", naming=part_path(tmp_path, 2, 2))


def test_fewer_tensors_than_promised(tmp_path):
    first = parts(tmp_path, ["a"], ["b"], **{"split.tensors.count": 3})
    refuse(first, r"'split\.tensors\.count': is 3, but the parts have 2 tensors")


def test_more_tensors_than_promised(tmp_path):
    first = parts(tmp_path, ["a"], ["b"], **{"split.tensors.count": 1})
    refuse(first, r"'split\.tensors\.count': is 1, but the parts have 2 tensors")


def test_negative_tensor_count(tmp_path):
    first = parts(tmp_path, ["a"], ["b"], **{"split.tensors.count": tiny.typed(T.INT32, -2)})
    refuse(first, r"'split\.tensors\.count': expected an unsigned")


def test_tensor_in_two_parts(tmp_path):
    first = parts(tmp_path, ["a", "b"], ["b"])
    refuse(first, r"tensor 'b': is also in model-00001", naming=part_path(tmp_path, 2, 2))


def test_parts_in_the_wrong_order(tmp_path):
    first = parts(tmp_path, ["a"], ["b"], ["c"])
    second, third = part_path(tmp_path, 2, 3), part_path(tmp_path, 3, 3)
    data = second.read_bytes()
    shutil.copy(third, second)
    third.write_bytes(data)
    refuse(first, r"'split\.no': expected 1 but got 2", naming=second)


def test_copy_of_the_first_part_as_the_second(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    shutil.copy(first, part_path(tmp_path, 2, 2))
    refuse(first, r"'split\.no': expected 1 but got 0", naming=part_path(tmp_path, 2, 2))


@pytest.mark.parametrize("hard", [True, False])
def test_link_to_the_first_part_as_the_second(tmp_path, hard):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.unlink()
    if hard:
        second.hardlink_to(first)
    else:
        second.symlink_to(first)
    refuse(first, r"is the same file as model-00001-of-00002\.gguf", naming=second)


def test_one_file_as_two_further_parts(tmp_path):
    first = parts(tmp_path, ["a"], ["b"], ["c"])
    second, third = part_path(tmp_path, 2, 3), part_path(tmp_path, 3, 3)
    third.unlink()
    third.symlink_to(second)
    refuse(first, r"is the same file as model-00002-of-00003\.gguf", naming=third)


def test_loop_of_links(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.unlink()
    second.symlink_to(second)
    refuse(first, r"symbolic links", naming=second)


def test_link_to_nothing(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.unlink()
    second.symlink_to(tmp_path / "gone")
    refuse(first, r"no such file", naming=second)


def test_directory_as_a_part(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.unlink()
    second.mkdir()
    refuse(first, "is a directory", naming=second)


def test_part_that_is_cut_off(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.write_bytes(second.read_bytes()[:-8])
    refuse(first, "tensor 'b': ends at byte", naming=second)


def test_part_that_is_no_gguf(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    part_path(tmp_path, 2, 2).write_bytes(b"<html>404</html>")
    refuse(first, "not a GGUF file", naming=part_path(tmp_path, 2, 2))


def test_part_of_a_model_that_says_it_is_another(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    tiny.write(
        second,
        split_keys(2, 2, 2) | {"general.architecture": "gemma3"},
        [tiny.Tensor.of("b", EIGHT)],
    )
    message = r"'general\.architecture': is 'gemma3', but 'llama' in model-00001"
    refuse(first, message, naming=second)


def test_part_of_a_model_with_another_number_of_tensors(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    tiny.write(second, split_keys(2, 2, 9), [tiny.Tensor.of("b", EIGHT)])
    refuse(first, r"'split\.tensors\.count': is '9', but '2'", naming=second)


def test_whole_model_as_a_part(tmp_path):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    tiny.write(second, {}, [tiny.Tensor.of("b", EIGHT)])
    refuse(first, r"'split\.no': is missing", naming=second)


@pytest.mark.parametrize(("number", "count"), [(2, 2), (7, 2), (1, 1)])
def test_number_beyond_the_count(tmp_path, number, count):
    path = tmp_path / "model-00001-of-00002.gguf"
    tiny.write(path, {"split.no": number, "split.count": count})
    refuse(path, rf"'split\.no': expected less than {count}")


def test_millions_of_parts(tmp_path):
    path = tmp_path / "model-00001-of-00002.gguf"
    tiny.write(path, {"split.no": 0, "split.count": 1 << 31})
    refuse(path, r"'split\.count': 2147483648 parts, more than")


def test_a_hundred_thousand_parts(tmp_path):
    path = tmp_path / "model-00001-of-99999.gguf"
    tiny.write(path, {"split.no": 0, "split.count": 99_999})
    refuse(path, r"'split\.count': 99999 parts, more than the 4096 allowed")


@pytest.mark.parametrize(
    ("kind", "said"), [("pipe", "regular file"), ("device", "regular file"), ("empty", "empty")]
)
def test_parts_that_are_no_files(tmp_path, kind, said):
    first = parts(tmp_path, ["a"], ["b"])
    second = part_path(tmp_path, 2, 2)
    second.unlink()
    if kind == "pipe":
        os.mkfifo(second)
    elif kind == "device":
        second.symlink_to("/dev/zero")
    else:
        second.touch()
    refuse(first, said, naming=second)
    with pytest.raises(ModelError, match=said) as caught:
        moesaic.partition(first, dry_run=True)
    assert caught.value.hint


def test_tensors_of_all_parts_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_split, "MAX_TENSORS", 1)
    refuse(parts(tmp_path, ["a"], ["b"]), r"'split\.count': 2 tensors in all, more than the 1")


@pytest.mark.parametrize("key", ["split.no", "split.count", "split.tensors.count"])
@pytest.mark.parametrize("value", ["2", 2.0, [2], True])
def test_numbers_of_another_type(tmp_path, key, value):
    refuse(parts(tmp_path, ["a"], ["b"], **{key: value}), rf"'{key}': expected an unsigned")


@pytest.mark.parametrize("name", ["../model-00001-of-00002.gguf", "x\n-00001-of-00002.gguf"])
def test_odd_names_stay_in_the_folder_of_the_first(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    parts(folder, ["a"], ["b"])
    for number in (1, 2):
        target = folder / name.replace("00001", f"{number:05}")
        shutil.move(part_path(folder, number, 2), target)
    model = read_gguf(folder / name)
    assert [path.parent for path in model.files] == [(folder / name).parent] * 2
