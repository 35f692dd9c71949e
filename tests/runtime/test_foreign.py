"""Marked strings behave as their plain text, and marks stay with their characters."""

import random

import pytest

from moesaic.runtime.foreign import Foreign, is_marked, mark, plain, seal

METHODS = [
    ("strip", ()),
    ("strip", ("aB ",)),
    ("lstrip", ()),
    ("rstrip", ("\n",)),
    ("split", ()),
    ("split", (None, 1)),
    ("split", ("aB",)),
    ("split", ("B", 2)),
    ("rsplit", ()),
    ("rsplit", (None, 1)),
    ("rsplit", ("a", 1)),
    ("splitlines", ()),
    ("splitlines", (True,)),
    ("partition", ("B",)),
    ("rpartition", ("a",)),
    ("replace", ("a", "xyz")),
    ("replace", ("B", "", 2)),
    ("replace", ("", "-")),
    ("replace", ("", "-", 3)),
    ("removeprefix", ("a",)),
    ("removesuffix", ("B",)),
    ("removesuffix", ("",)),
    ("lower", ()),
    ("upper", ()),
    ("startswith", ("a",)),
    ("endswith", (("B", "a"),)),
    ("find", ("aB",)),
    ("rfind", ("B", 1)),
    ("count", ("a",)),
    ("isspace", ()),
    ("isalpha", ()),
    ("isupper", ()),
    ("__len__", ()),
    ("__contains__", ("Ba",)),
    ("__getitem__", (slice(1, -1),)),
    ("__getitem__", (slice(None, None, -1),)),
    ("__mul__", (3,)),
    ("join", (["x", "yy", ""],)),
    ("center", (20,)),
    ("zfill", (9,)),
    ("__add__", ("x",)),
]


def unmark(value):
    if isinstance(value, str):
        return plain(value)
    return type(value)(map(unmark, value)) if isinstance(value, list | tuple) else value


def mixed(text: str) -> Foreign:
    """Marks the capital letters and nothing else."""
    return Foreign("".join(mark(c) if c.isupper() else c for c in text))


@pytest.mark.parametrize(("name", "args"), METHODS)
def test_methods_see_the_plain_text(name, args):
    rng = random.Random(f"{name}{args}")
    for _ in range(200):
        text = "".join(rng.choice("aaBB \n-é😀") for _ in range(rng.randint(0, 12)))
        expected = getattr(text, name)(*args)
        for value in (mark(text), mixed(text)):
            assert unmark(seal(getattr(value, name)(*args))) == expected


@pytest.mark.parametrize(
    ("name", "args"), [(n, a) for n, a in METHODS if n not in ("lower", "upper")]
)
def test_marks_stay_with_their_characters(name, args):
    rng = random.Random(f"{name}{args}2")

    def check(value):
        if isinstance(value, list | tuple):
            for item in value:
                check(item)
        elif isinstance(value, str):
            assert all(is_marked(c) == plain(c).isupper() for c in str.__str__(value))

    for _ in range(200):
        check(getattr(mixed("".join(rng.choice("aaBBb \n-") for _ in range(9))), name)(*args))


def test_a_mark_survives_what_puts_texts_together():
    text = mark("A")
    for whole in ("x" + text, text + "x", f"x{text}", "%s" % text, "{}".format(text)):  # noqa: UP031, UP032
        assert is_marked(whole)
        assert "A" not in str.__str__(whole)
    assert plain("".join(["x", text])) == "xA"


def test_case_changes_keep_the_mark():
    for value in (mark("ǆß").upper(), mark("ABC").lower(), mark("a b").title()):
        assert all(is_marked(c) or c == " " for c in str.__str__(value))


def test_comparisons_and_keys():
    text = mark("role")
    assert text == "role"
    assert "role" == text  # noqa: SIM300 - the other side compares
    assert text != "x"
    assert {"role": 1}[text] == 1
    assert {text: 1}["role"] == 1
    assert text in ["role"]
    assert sorted([mark("b"), "a"]) == ["a", "b"]
    assert repr(mark("a'\n")) == repr("a'\n")


def test_every_character_comes_back():
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000), 0x1F600, 0x10FFFF]))
    assert plain(mark(text)) == text
    assert plain(mark("\ud800")) == "\ufffd"
