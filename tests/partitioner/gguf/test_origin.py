import pytest
from kit import tiny_gguf

from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.gguf.origin import read_origin
from moesaic.plan_format import Origin, Parent


def origin(tmp_path, **keys):
    general = {"general." + key.replace("__", "."): value for key, value in keys.items()}
    return read_origin(read_gguf(tiny_gguf.write(tmp_path / "model.gguf", general)).metadata)


def test_a_silent_file_says_nothing(tmp_path):
    assert origin(tmp_path) == Origin()


def test_every_key_is_read(tmp_path):
    found = origin(
        tmp_path,
        license="other",
        license__name="a name",
        license__link="https://example.org/licence",
        languages=["en", "de"],
        tags=["moe", "moe", "text-generation"],
        base_model__count=2,
        base_model__0__name="Base",
        base_model__0__organization="Somebody",
        base_model__0__repo_url="https://huggingface.co/somebody/base",
        base_model__1__url="https://example.org/second",
        base_model__2__name="beyond the count",
    )
    assert found == Origin(
        license="other",
        license_name="a name",
        license_link="https://example.org/licence",
        languages=["en", "de"],
        tags=["moe", "text-generation"],
        parents=[
            Parent("Base", "Somebody", "https://huggingface.co/somebody/base"),
            Parent(None, None, "https://example.org/second"),
        ],
    )


@pytest.mark.parametrize("text", ["", " ", "x" * 257, "two\nlines", "\x1b[31m", "a\u202eb", 7])
def test_what_is_no_short_text_is_left_out(tmp_path, text):
    found = origin(
        tmp_path,
        license=text,
        tags=[str(text), "ok"],
        base_model__count=1,
        base_model__0__name=text,
    )
    assert found == Origin(tags=["7", "ok"] if text == 7 else ["ok"])


def test_lists_are_bounded(tmp_path):
    found = origin(tmp_path, tags=[f"tag{i}" for i in range(1000)], base_model__count=2**31)
    assert len(found.tags) == 64
    assert found.parents == []


def test_a_list_where_a_text_is_expected_and_the_reverse(tmp_path):
    assert origin(tmp_path, license=["mit"], tags="moe", languages=[1, 2]) == Origin()
    assert origin(tmp_path, base_model__count="many") == Origin()
