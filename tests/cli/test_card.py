"""`moesaic card` and the card that `partition` writes, read back as the Hub reads them."""

import json
import os
import re
import shutil
import stat
from itertools import pairwise

import pytest
from conftest import MODELS
from huggingface_hub import ModelCard, metadata_load
from kit import many_layers
from kit.command import refused, run, shown
from kit.edited_gguf import edited
from markdown_it import MarkdownIt

import moesaic
from moesaic.demo import DEMO_MODEL
from moesaic.markdown import plain

HOSTILE = (
    "a|b\n---\n# <img src=x onerror=y> [l](http://x) `c` _e_ **s** www.x.org \x1b[31m\u202e&amp;$x$"
)
TEXT = " ".join("".join(c if c.isprintable() else " " for c in HOSTILE).split())


@pytest.fixture
def copied(demo_plan, tmp_path):
    return shutil.copytree(demo_plan, tmp_path / "plan")


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def sections(text):
    """Returns the tables of a card, by heading: lists of rows of rendered cells."""
    found, heading, row = {}, "", []
    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            heading = token.content
        elif before.type in ("td_open", "th_open"):
            row.append("".join(child.content for child in token.children))
            assert {child.type for child in token.children} <= {"text", "text_special"}
        elif token.type == "tr_close":
            found.setdefault(heading, []).append(row)
            row = []
    return found


def edit_plan(folder, change):
    path = folder / "plan.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))


def test_partition_writes_a_card_that_the_hub_can_read(demo_plan):
    assert metadata_load(demo_plan / "README.md") == {
        "language": ["en"],
        "library_name": "moesaic",
        "license": "mit",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "onnx", "gpt-oss", "mixture-of-experts"],
    }
    assert ModelCard(card(demo_plan)).data.license == "mit"


def test_the_tables_hold_the_numbers_of_the_plan(tmp_path):
    plan = moesaic.partition(DEMO_MODEL, tmp_path / "plan", devices="cpu=64MiB,cuda:0=1GiB")
    tables = sections(card(tmp_path / "plan"))
    facts = dict(tables["Model"][1:])
    assert facts["experts"] == "8, 2 of them a token"
    assert "Q8_0 (18)" in facts["tensor types"] and facts["licence"] == "mit"
    head, host, gpu = tables["Memory"]
    assert (host[0], gpu[0]) == ("cpu", "cuda:0")
    assert (host[-1], gpu[-1]) == ("64.00 MiB", "1.00 GiB")
    total = head.index("total")
    for row, memory in zip((host, gpu), plan.memory, strict=True):
        assert float(row[total].split()[0]) == pytest.approx(memory.total / 2**20, abs=0.01)
    wide = many_layers.write(many_layers.many_layers(61, 2), tmp_path / "wide")
    shown("card", wide)
    tables = sections(card(wide))
    assert [row for row in tables["Placement"] if row[0] == "routed experts"] == [
        ["routed experts", "cuda:0", "0-1", "5.00 GiB"],
        ["routed experts", "cpu", "0, 2-31, 33-60", "234.00 GiB"],
        ["routed experts", "cuda:1", "31-32", "5.00 GiB"],
    ]
    assert tables["Memory"][1][:3] == ["cpu", "234.00 GiB", "234.00 GiB"]
    assert [row[0] for row in tables["Files"][1:]] == ["plan.json"]


def test_every_file_is_listed_with_its_size(demo_plan):
    listed = {row[0]: row[1] for row in sections(card(demo_plan))["Files"][1:]}
    names = {path.name for path in demo_plan.iterdir()} - {"README.md"}
    assert listed.keys() == names
    for name, text in listed.items():
        number, unit = text.split()
        factor = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
        size = (demo_plan / name).stat().st_size
        assert float(number) * factor == pytest.approx(size, abs=0.006 * factor)


def test_nothing_planned_is_called_measured(demo_plan):
    text = card(demo_plan)
    for heading in ("Memory", "Speed"):
        section = text[text.index(f"## {heading}\n") :].partition("\n## ")[0]
        assert "Not measured" in section


def test_predictions_are_called_predictions(tmp_path):
    wide = many_layers.write(many_layers.many_layers(61, 2), tmp_path)
    shown("card", wide)
    assert sections(card(wide))["Speed"][1:] == [
        ["prompt", "512 tokens", "345.5 (predicted)"],
        ["generation", "after 1024 tokens", "12.2 (predicted)"],
    ]
    assert "cpu measured, cuda:0 assumed, cuda:1 assumed. Not measured." in card(wide)


def test_code_of_the_card_runs(demo_plan, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", card(demo_plan), re.DOTALL)[1]
    monkeypatch.chdir(demo_plan)
    exec(code.replace("max_tokens=64", "max_tokens=4"), {})
    assert len(capsys.readouterr().out) > 4
    lines = re.search(r"```bash\n(.*?)```", card(demo_plan), re.DOTALL)[1].splitlines()
    assert len(lines) == 3
    assert "verified" in shown(*lines[1].split("#")[0].split()[1:])


def test_what_the_model_file_says_reaches_the_front_matter(tmp_path):
    path = edited(
        MODELS / "llama-f32.gguf",
        tmp_path / "model.gguf",
        keys={
            "general.license": "Some Licence 2.0",
            "general.license.link": "https://example.org/licence: really",
            "general.languages": ["en", "zh-Hans", "not a code"],
            "general.tags": ["chat", "gguf", "yes", "a: b", "- x"],
            "general.base_model.count": 2,
            "general.base_model.0.name": "Base",
            "general.base_model.0.organization": "Some Body",
            "general.base_model.0.repo_url": "https://huggingface.co/some-body/Base_1.5",
            "general.base_model.1.name": "Elsewhere",
            "general.base_model.1.repo_url": "https://example.org/some-body/elsewhere",
        },
    )
    moesaic.partition(path, tmp_path / "plan")
    assert metadata_load(tmp_path / "plan" / "README.md") == {
        "base_model": ["some-body/Base_1.5"],
        "language": ["en", "zh-Hans"],
        "library_name": "moesaic",
        "license": "other",
        "license_name": "Some Licence 2.0",
        "license_link": "https://example.org/licence: really",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "onnx", "llama", "chat", "yes", "a: b", "- x"],
    }
    made_from = [row[1] for row in sections(card(tmp_path / "plan"))["Model"] if "made" in row[0]]
    assert made_from == [
        "Some Body / Base, https://huggingface.co/some-body/Base_1.5",
        "Elsewhere, https://example.org/some-body/elsewhere",
    ]


def test_what_the_model_file_does_not_say_is_left_out(tmp_path):
    source = MODELS / "llama-f32.gguf"
    silent = dict.fromkeys(("general.license", "general.languages", "general.tags", "general.name"))
    moesaic.partition(edited(source, tmp_path / "m.gguf", keys=silent), tmp_path / "plan")
    data = metadata_load(tmp_path / "plan" / "README.md")
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}
    assert "not given by the model file" in card(tmp_path / "plan")


def test_names_cannot_change_the_structure(copied):
    def change(spec):
        spec["model"] |= {"name": HOSTILE, "architecture": HOSTILE}
        spec["source"] |= {"file": HOSTILE, "types": {HOSTILE: 3}}
        spec["source"]["origin"] = {
            "license": HOSTILE,
            "license_name": HOSTILE,
            "license_link": HOSTILE,
            "languages": [HOSTILE],
            "tags": [HOSTILE, "fine"],
            "parents": [{"name": HOSTILE, "organization": HOSTILE, "url": HOSTILE}],
        }
        spec["devices"][0]["name"] = spec["memory"][0]["device"] = HOSTILE
        spec["assignment"][0]["device"] = HOSTILE

    before = sections(card(copied))
    edit_plan(copied, change)
    shown("card", copied)
    text = card(copied)
    after = sections(text)
    assert after.keys() == before.keys()
    assert {len(row) for row in after["Memory"]} == {len(before["Memory"][0])}
    facts = dict(after["Model"][1:])
    assert facts["source"].startswith(TEXT)
    assert facts["tensor types"] == f"{TEXT} (3)"
    assert after["Memory"][1][0] == TEXT
    html = MarkdownIt("commonmark").enable("table").render(ModelCard(text).text)
    body = html.partition("<h2>Running it")[0]
    assert "<img" not in body and "<a " not in body and "<code>" not in body
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    data = metadata_load(copied / "README.md")
    assert data["tags"] == ["gguf", "onnx", "mixture-of-experts", TEXT, "fine"]
    assert data["license"] == "other" and data["license_name"] == TEXT
    assert data["license_link"] == TEXT
    assert "language" not in data and "base_model" not in data


@pytest.mark.parametrize(
    "text",
    ["Q8_0", "cuda:0", "x" * 500, "", "\n", "é|漢", "\\", "\\|", "a\\", "1. x", "- x", HOSTILE],
)
def test_any_text_shows_as_itself(text):
    expected = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    expected = expected if len(expected) <= 200 else expected[:199] + "…"
    (cell,) = sections(f"# h\n\n| a |\n|---|\n| {plain(text)} |\n")["h"][1]
    assert cell == expected


def test_placing_anew_renews_the_card(copied):
    before = card(copied)
    result = run("partition", copied, "--context", 512)
    assert result.exit_code == 0 and "README" not in result.stderr
    assert "context of 512 tokens" in card(copied) != before
    assert "context of 1024 tokens" in before


def test_a_dry_run_leaves_the_card_alone(copied):
    before = card(copied)
    assert run("partition", copied, "--context", 512, "--dry-run").exit_code == 0
    assert card(copied) == before


def test_an_edited_card_is_kept(copied):
    path = copied / "README.md"
    own = card(copied).replace("## Speed", "## My own measurements")
    path.write_text(own)
    result = run("partition", copied, "--context", 512)
    assert result.exit_code == 0
    assert "kept README.md" in result.stderr and card(copied) == own
    said = refused("card", copied)
    assert "was edited" in said and "--force" in said and card(copied) == own
    shown("card", copied, "--force")
    assert "context of 512 tokens" in card(copied)


def test_an_edited_card_outlives_the_plan(copied, tmp_path):
    own = card(copied).replace("## Speed", "## My own measurements")
    (copied / "README.md").write_text(own)
    arguments = ("partition", DEMO_MODEL, "-o", copied, "--force", "--context", 512)
    result = run(*arguments)
    assert result.exit_code == 0 and "kept README.md" in result.stderr
    assert card(copied) == own and moesaic.Plan.open(copied).limits.context == 512
    shown("card", copied, "--force")
    assert run(*arguments[:-1], 256).exit_code == 0
    assert "context of 256 tokens" in card(copied)


@pytest.mark.parametrize("text", ["", "my model\n", "---\nlicense: mit\n---\n", "x" * (2 << 20)])
def test_a_card_of_somebody_else_is_kept(copied, text):
    (copied / "README.md").write_text(text)
    moesaic.partition(copied, context=512)
    assert card(copied) == text
    assert "not a card that moesaic wrote" in refused("card", copied)


def test_a_missing_card_is_written(copied):
    (copied / "README.md").unlink()
    result = run("card", copied)
    assert result.exit_code == 0 and "README.md" in result.stderr
    assert metadata_load(copied / "README.md")["library_name"] == "moesaic"
    assert stat.S_IMODE((copied / "README.md").stat().st_mode) & 0o444 == 0o444
    (copied / "README.md").unlink()
    moesaic.partition(copied, context=512)
    assert "context of 512" in card(copied)


def test_a_link_is_not_followed(copied, tmp_path):
    outside = tmp_path / "outside.md"
    outside.write_text("precious")
    (copied / "README.md").unlink()
    (copied / "README.md").symlink_to(outside)
    assert "was edited" in refused("card", copied)
    shown("card", copied, "--force")
    assert outside.read_text() == "precious"
    assert not (copied / "README.md").is_symlink()


def test_what_is_in_the_way_is_an_error(copied):
    (copied / "README.md").unlink()
    (copied / "README.md").mkdir()
    assert "was edited" in refused("card", copied)
    assert "cannot be written" in refused("card", copied, "--force")
    assert run("partition", copied, "--context", 512).exit_code == 0


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_that_may_not_be_written(copied, force, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:  # whom rights do not stop
        monkeypatch.setattr("tempfile.mkstemp", refuse)
    copied.chmod(0o555)
    try:
        assert "README.md: cannot be written: Permission denied" in refused("card", copied, *force)
    finally:
        copied.chmod(0o755)


def test_what_is_no_plan_has_no_card(tmp_path):
    assert "plan.json is missing" in refused("card", tmp_path)
    assert "is not a directory" in refused("card", DEMO_MODEL)
    assert list(tmp_path.iterdir()) == []
