"""Plan directories appear whole or not at all."""

import os
import shutil
import stat

import pytest

from moesaic.errors import PlanError
from moesaic.partitioner.plan import writer
from moesaic.partitioner.plan.writer import new_directory, require_space


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def make(target, text="new", *, force=False):
    with new_directory(target, force=force) as folder:
        assert folder.parent == target.parent
        (folder / "plan.json").write_text(text)


def test_a_directory_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "plan"
    with new_directory(target, force=False) as folder:
        (folder / "plan.json").write_text("x")
        assert not target.exists()
    assert contents(tmp_path / "deep") == ["plan"]
    assert contents(target) == ["plan.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(tmp_path, error):
    with pytest.raises(error), new_directory(tmp_path / "plan", force=False) as folder:
        (folder / "plan.json").write_text("x")
        raise error
    assert contents(tmp_path) == []


def test_an_old_plan_survives_an_error(tmp_path):
    make(tmp_path / "plan", "old")
    with pytest.raises(RuntimeError), new_directory(tmp_path / "plan", force=True):
        raise RuntimeError
    assert (tmp_path / "plan" / "plan.json").read_text() == "old"
    assert contents(tmp_path) == ["plan"]


def test_an_existing_plan_needs_force(tmp_path):
    make(tmp_path / "plan", "old")
    with pytest.raises(PlanError, match="exists") as caught:
        make(tmp_path / "plan")
    assert "--force" in str(caught.value.hint)
    make(tmp_path / "plan", force=True)
    assert (tmp_path / "plan" / "plan.json").read_text() == "new"
    assert contents(tmp_path) == ["plan"]


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "plan").mkdir()
    make(tmp_path / "plan")
    assert contents(tmp_path / "plan") == ["plan.json"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_plan_is_never_replaced(tmp_path, force):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = contents(tmp_path)
    for name in before:
        with pytest.raises(PlanError, match="not a plan"):
            make(tmp_path / name, force=force)
    assert contents(tmp_path) == before
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_the_old_plan_comes_back_if_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    make(tmp_path / "plan", "old")
    monkeypatch.setattr(writer, "exchange", lambda one, other: False)  # an old filesystem
    rename = writer.Path.rename

    def failing(self, target):
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(writer.Path, "rename", failing)
    with pytest.raises(PlanError, match="Input/output error"):
        make(tmp_path / "plan", force=True)
    assert (tmp_path / "plan" / "plan.json").read_text() == "old"
    assert contents(tmp_path) == ["plan"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlanError, match="file/plan") as caught:
        make(tmp_path / "file" / "plan")
    assert "permissions" in str(caught.value.hint)


def test_a_place_that_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer.Path, "exists", denied)
    with pytest.raises(PlanError, match="Permission denied"):
        require_space(tmp_path / "plan", 1)


def test_space_is_checked_where_the_target_will_be(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return shutil._ntuple_diskusage(100, 90, 10)

    monkeypatch.setattr(writer.shutil, "disk_usage", usage)
    require_space(tmp_path / "not" / "yet", 10)
    with pytest.raises(PlanError, match="needs 11 bytes, but only 10 are free"):
        require_space(tmp_path / "not" / "yet", 11)
    assert asked == [tmp_path, tmp_path]
