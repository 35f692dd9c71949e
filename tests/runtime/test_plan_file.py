import hashlib
import io
import json
import os
import warnings

import msgspec
import pytest
from kit.tiny_plan import tiny_plan, with_tensors

from moesaic.errors import PlanError
from moesaic.plan_file import read_plan
from moesaic.runtime.plan import load_plan


@pytest.fixture
def folder(tmp_path):
    return tiny_plan().write(tmp_path / "plan")


def edit(folder, **changes):
    path = folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_plan_loads(folder):
    plan = load_plan(folder)
    assert plan.file == tiny_plan().file
    assert plan.weights == folder / "weights.bin"
    assert plan.program.weights_bytes == plan.weights.stat().st_size
    assert load_plan(str(folder)).file == plan.file


def test_a_folder_without_a_plan(tmp_path):
    with pytest.raises(PlanError, match=r"plan\.json is missing") as info:
        load_plan(tmp_path)
    assert "partition" in info.value.hint
    with pytest.raises(PlanError, match="is not a directory"):
        load_plan(tmp_path / "none")


@pytest.mark.parametrize("name", ["plan.json", "weights.bin"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PlanError, match=f"{name} is missing"):
        load_plan(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "\xff"}', b'{"format": 1}', b"[" * 100_000],
)
def test_what_is_not_json_is_refused(folder, text):
    (folder / "plan.json").write_bytes(text)
    with pytest.raises(PlanError, match=r"plan\.json: "):
        load_plan(folder)


def test_another_format_or_version_is_refused(folder):
    edit(folder, version=2, new_field=1)
    with pytest.raises(PlanError, match="version: expected 1, got 2"):
        load_plan(folder)
    edit(folder, format="other")
    with pytest.raises(PlanError, match="format: expected `moesaic-plan`, got `other`"):
        load_plan(folder)


def test_unknown_fields_are_refused(folder):
    edit(folder, extra=1)
    with pytest.raises(PlanError, match="unknown field `extra`"):
        load_plan(folder)


def test_a_wrong_type_is_named(folder):
    edit(folder, limits={"context": "8192", "sequences": 1, "batch": 1, "logits_rows": 1})
    with pytest.raises(PlanError, match=r"\$\.limits\.context"):
        load_plan(folder)


def test_the_uuid_is_that_of_the_tensors(folder):
    edit(folder, uuid="00000000-0000-8000-8000-000000000000")
    with pytest.raises(PlanError, match="uuid: expected"):
        load_plan(folder)
    edit(folder, uuid="no")
    with pytest.raises(PlanError, match="uuid: `no` is not one"):
        load_plan(folder)


def test_a_changed_tensor_list_is_noticed(folder):
    tensors = json.loads((folder / "plan.json").read_text())["tensors"]
    tensors[0]["name"] = "other"
    edit(folder, tensors=tensors)
    with pytest.raises(PlanError, match="uuid"):
        load_plan(folder)


def test_weights_of_another_plan_are_noticed(folder):
    plan = tiny_plan()
    renamed = [msgspec.structs.replace(plan.file.tensors[0], xxh3="1" * 16), *plan.file.tensors[1:]]
    other = with_tensors(plan, renamed)
    (folder / "weights.bin").write_bytes(other.weights)
    with pytest.raises(PlanError, match="uuid: expected the plan's") as info:
        load_plan(folder)
    assert "different plans" in info.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "expected 81920 bytes, got 81919"),
        (lambda data: data + b"\0", "expected 81920 bytes, got 81921"),
        (lambda data: data[:100], "is not a weights file"),
        (lambda data: b"", "is not a weights file"),
        (lambda data: b"GGUF" + data[4:], "is not a weights file"),
        (lambda data: data[:8] + b"\2\0\0\0" + data[12:], "version: expected 1, got 2"),
        (lambda data: data[:16] + bytes(16) + data[32:], "uuid"),
        (lambda data: data[:32] + bytes(16) + data[48:], "header does not fit"),
        (lambda data: data[:4095] + b"\1" + data[4096:], "header does not fit"),
    ],
)
def test_damaged_weights_are_noticed(folder, change, message):
    path = folder / "weights.bin"
    data = path.read_bytes()
    message = message.replace("81920", str(len(data)))
    message = message.replace("81919", str(len(data) - 1)).replace("81921", str(len(data) + 1))
    path.write_bytes(change(data))
    with pytest.raises(PlanError, match=message):
        load_plan(folder)


def test_numbers_are_checked_by_the_native_program(folder):
    limits = json.loads((folder / "plan.json").read_text())["limits"]
    edit(folder, limits=limits | {"batch": 2**70})
    with pytest.raises(PlanError):
        load_plan(folder)
    edit(folder, limits=limits | {"batch": 17})
    with pytest.raises(PlanError, match=r"plan\.json: .*max_rows: expected 17 to 17, got 16") as e:
        load_plan(folder)
    assert "again" in e.value.hint


@pytest.mark.parametrize("name", ["plan.json", "weights.bin", "model.onnx"])
def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path, name):
    outside = tmp_path / "outside"
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.write_bytes(b"")
    (folder / name).symlink_to(outside)
    with pytest.raises(PlanError, match="symbolic link that leaves the plan") as info:
        load_plan(folder)
    assert "local_dir" in info.value.hint


def test_links_within_the_folder_and_hard_links_are_fine(folder, tmp_path):
    (folder / "weights.bin").rename(folder / "data")
    (folder / "weights.bin").symlink_to("data")
    load_plan(folder)
    (folder / "weights.bin").unlink()
    os.link(folder / "data", folder / "weights.bin")
    load_plan(folder)
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be reached by a link
    load_plan(tmp_path / "link")


@pytest.mark.parametrize("name", ["plan.json", "weights.bin"])
def test_pipes_and_folders_are_refused(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(PlanError, match="not a regular file"):
        load_plan(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(PlanError, match="not a regular file"):
        load_plan(folder)


def test_another_graph_is_warned_about(folder):
    (folder / "model.onnx").write_bytes(b"graph")
    with pytest.warns(UserWarning, match=r"model\.onnx is not the graph"):
        load_plan(folder)
    edit(folder, model_sha256=hashlib.sha256(b"graph").hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_plan(folder)


@pytest.mark.parametrize("name", ["plan.json", "weights.bin", "model.onnx"])
def test_a_file_that_cannot_be_read_is_named(folder, name, monkeypatch):
    (folder / "model.onnx").write_bytes(b"graph")
    real = io.open

    def guarded(path, *args, **kwargs):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(io, "open", guarded)  # what Path.open calls
    with pytest.raises(PlanError, match=f"{name}: cannot be read: Permission denied") as info:
        load_plan(folder)
    assert info.value.hint


def test_reading_alone_touches_no_weights(folder):
    (folder / "weights.bin").unlink()
    assert read_plan(folder) == tiny_plan().file
