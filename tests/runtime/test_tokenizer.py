"""The runtime's tokenizer: ids, text, streaming, and files that are broken."""

import json
import random
import threading

import pytest
from kit import vocabularies as vocab

from moesaic.errors import PlanError
from moesaic.runtime.tokenizer import Tokenizer

CONTROL, USER = 3, 4


@pytest.fixture(params=vocab.NAMES)
def tokenizer(request, tmp_path) -> Tokenizer:
    return Tokenizer(vocab.plan_folder(tmp_path, request.param))


@pytest.fixture
def small(tmp_path) -> Tokenizer:
    added = [("<b>", CONTROL), ("<|im_end|>", CONTROL), ("<t>", USER), ("[PAD260]", 5)]
    keys = vocab.byte_keys(*added, bos_token_id=257, add_bos_token=True)
    vocab.convert(tmp_path, keys).write(tmp_path)
    return Tokenizer.from_directory(tmp_path)


def test_facts(small):
    assert small.bos_id == 257
    assert small.adds_bos
    assert small.eos_ids == {258}
    assert small.vocab_size == 260
    assert small.unused_ids(263) == [260, 261, 262]
    assert small.unused_ids(10) == []
    assert small.chat_template is None
    assert small.special_texts == {"bos_token": "<b>"}
    assert small.is_special(258)
    assert not small.is_special(259)


def test_special_tokens_are_text_unless_asked_for(small):
    assert small.encode("<|im_end|>", add_special=False, parse_special=True) == [258]
    as_text = small.encode("<|im_end|>", add_special=False)
    assert len(as_text) == 10
    assert 258 not in as_text
    assert small.encode("<t>", add_special=False) == [259]


def test_bos_is_added_unless_refused(small):
    assert small.encode("")[:1] == [257]
    assert small.encode(" a") == [257, 256]
    assert small.encode(" a", add_special=False) == [256]


def test_lone_surrogates_are_replaced(small):
    for text in ("\ud83d", "a\udc00b", "\ude00\ud83d"):
        expected = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
        assert small.decode(small.encode(text)) == expected
    assert small.decode(small.encode("\ud83d\ude00")) == "😀"


def test_texts_come_back(tokenizer):
    for text in vocab.texts():
        got = tokenizer.decode(tokenizer.encode(text), skip_special=True)
        expected = tokenizer.backend.decode(tokenizer.encode(text))
        # The library takes the letters of an added token, such as ö of DeepSeek, for bytes; a text
        # with bytes that the cut vocabulary lacks comes back to neither.
        assert got in (text, expected)


def test_decoding_equals_the_library_on_random_ids(tokenizer):
    rng = random.Random(3)
    for _ in range(500):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(1, 9))]
        for skip in (True, False):
            expected = tokenizer.backend.decode(ids, skip_special_tokens=skip)
            if "\ufffd" not in expected:  # where bytes are no text, we follow Unicode
                assert tokenizer.decode(ids, skip_special=skip) == expected


def test_streamed_pieces_make_the_whole_text_and_cut_no_character(tokenizer):
    rng = random.Random(4)
    texts = [*vocab.texts(), "👩‍👩‍👧‍👦🏳️‍🌈", "日本語" * 5]
    cases = [tokenizer.encode(text) for text in texts]
    cases += [[rng.randrange(tokenizer.vocab_size) for _ in range(8)] for _ in range(300)]
    for ids in cases:
        stream = tokenizer.stream()
        pieces = [stream.push(i) for i in ids]
        tail = stream.flush()
        assert "".join(pieces) + tail == tokenizer.decode(ids)
        assert tail in ("", "\ufffd")


def test_a_stream_waits_for_the_rest_of_a_character(small):
    stream = small.stream()
    ids = small.encode("a😀b", add_special=False)
    assert [stream.push(i) for i in ids] == ["a", "", "", "", "😀", "b"]
    stream = small.stream()
    assert "".join(stream.push(i) for i in ids[:4]) == "a"
    assert stream.flush() == "\ufffd"


def test_the_first_space_is_dropped_unless_the_text_continues(tmp_path):
    tokenizer = Tokenizer(vocab.plan_folder(tmp_path, "llama2"))
    ids = tokenizer.encode("the cat", add_special=False)
    assert tokenizer.decode(ids) == "the cat"
    stream = tokenizer.stream(continues=True)
    assert "".join(map(stream.push, ids)) + stream.flush() == " the cat"


def test_token_bytes(small):
    assert small.token_bytes(256) == b" a"
    assert small.token_bytes(small.encode("\xff", add_special=False)[0]) == b"\xc3"
    assert small.token_bytes(257) == b"<b>"
    for none in (10_000, -1, 1 << 40):
        assert small.token_bytes(none) == b""
    assert small.decode([256, 10_000, -1]) == " a"


def test_threads_do_not_mix_their_flags(small):
    wrong = []

    def work(parse: bool) -> None:
        for _ in range(200):
            ids = small.encode("<|im_end|>" * 20, add_special=False, parse_special=parse)
            if (258 in ids) != parse or (parse and len(ids) != 20):
                wrong.append(parse)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- broken folders ---


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_broken_configuration_names_the_file(tmp_path, name, content):
    vocab.plan_folder(tmp_path, "llama2")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PlanError, match=name):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"nonsense"])
def test_broken_tokenizer_names_the_file(tmp_path, content):
    vocab.plan_folder(tmp_path, "llama2")
    (tmp_path / "tokenizer.json").unlink()
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(PlanError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path).encode("a")


@pytest.mark.parametrize("value", ["1", [1.5], {"a": 1}, [True], -3])
def test_stop_ids_of_another_type_are_refused(tmp_path, value):
    vocab.plan_folder(tmp_path, "llama2")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(PlanError, match=r"generation_config\.json: eos_token_id"):
        _ = Tokenizer(tmp_path).eos_ids


def test_a_chat_template_that_is_not_text_names_the_file(tmp_path):
    vocab.plan_folder(tmp_path, "llama2")
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(PlanError, match=r"chat_template\.jinja"):
        _ = Tokenizer(tmp_path).chat_template
