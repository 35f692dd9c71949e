"""Converted tokenizers against the originals' ids, and the rules for everything around them."""

import json

import pytest
from kit import tiny_gguf as tiny
from kit import vocabularies as vocab
from tokenizers import Tokenizer

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.pretokenizers import PRE_TOKENIZERS

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def load(files) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(files.tokenizer_json))


def ids(tokenizer: Tokenizer, text: str, *, special: bool = False, as_text: bool = False):
    tokenizer.encode_special_tokens = as_text
    return tokenizer.encode(text, add_special_tokens=special).ids


def tokens(tokenizer: Tokenizer, text: str, **how):
    return [tokenizer.id_to_token(i) for i in ids(tokenizer, text, **how)]


# --- against the originals ---


@pytest.mark.parametrize("name", vocab.NAMES)
def test_ids_equal_those_of_the_original(tmp_path, name):
    record = vocab.golden(name)
    tokenizer = load(vocab.convert(tmp_path, record["metadata"]))
    for text, expected, as_text in zip(
        vocab.texts(), record["ids"], record["ids_special_as_text"], strict=True
    ):
        assert ids(tokenizer, text) == expected, text
        assert ids(tokenizer, text, as_text=True) == as_text, text


@pytest.mark.parametrize("name", vocab.NAMES)
def test_special_tokens_in_text_are_never_control_tokens(tmp_path, name):
    files = vocab.convert(tmp_path, vocab.golden(name)["metadata"])
    tokenizer = load(files)
    controls = {t["id"]: t["content"] for t in files.tokenizer_json["added_tokens"] if t["special"]}
    assert controls
    for index, text in controls.items():
        for put in (text, f" {text}x", text + text, f"\n{text}"):
            assert index in ids(tokenizer, put)
            assert not controls.keys() & set(ids(tokenizer, put, as_text=True))


@pytest.mark.parametrize("name", vocab.NAMES)
def test_text_comes_back(tmp_path, name):
    tokenizer = load(vocab.convert(tmp_path, vocab.golden(name)["metadata"]))
    for text in ("Hello world", " a  b\n\n\tc ", "naïve 日本語 😀", "", "x = 1;  // note"):
        assert tokenizer.decode(ids(tokenizer, text, as_text=True)) == text


# --- byte-level vocabularies ---


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_loads_and_loses_nothing(tmp_path, pre):
    tokenizer = load(vocab.convert(tmp_path, vocab.byte_keys(pre=pre)))
    text = "It's 12345 Größe, x=1;\r\n\n  漢字カナ don’t 'LL  \t…!!/ ½ end "
    assert tokenizer.decode(ids(tokenizer, text)) == text


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", "x 1234's\n\n y", ["x", " 1234", "'s", "\n\n", " y"]),
        ("llama-bpe", "It'S 12345!\n\n a", ["It", "'S", " ", "123", "45", "!\n\n", " a"]),
        ("qwen2", "a 12", ["a", " ", "1", "2"]),
        ("gpt-4o", "HelloWorld's 1234/", ["Hello", "World's", " ", "123", "4", "/"]),
        ("tekken", "HelloWorld 12", ["Hello", "World", " ", "1", "2"]),
        ("refact", "a 12 b", ["a", " ", "1", "2", " b"]),
        ("deepseek-v3", "漢字abc1234", ["漢字", "abc", "123", "4"]),
        ("deepseek-llm", "ab 漢字 12", ["ab", " ", "漢字", " ", "1", "2"]),
        ("kimi-k2", "漢字abc DEf", ["漢字", "abc", " DEf"]),
        ("bailingmoe", "a\n\n1", ["a", "\n\n", "1"]),
    ],
)
def test_pre_tokenizers_cut_where_their_models_cut(tmp_path, pre, text, pieces):
    tokenizer = load(vocab.convert(tmp_path, vocab.byte_keys(pre=pre)))
    cut = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[a:b] for _, (a, b) in cut] == pieces


def test_an_unknown_pre_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"'tokenizer\.ggml\.pre': .*'mine' is not known") as info:
        vocab.convert(tmp_path, vocab.byte_keys(pre="mine"))
    assert "llama-bpe" in info.value.hint


@pytest.mark.parametrize(
    ("architecture", "text", "pieces"),
    [("qwen3moe", "12", 2), ("llama", "123", 1), ("gpt-oss", "1234", 2), ("other", "1234", 1)],
)
def test_a_missing_pre_tokenizer_follows_the_architecture(tmp_path, architecture, text, pieces):
    keys = {"general.architecture": architecture} | vocab.byte_keys(pre=None)
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) == pieces


def test_qwen_composes_characters_and_llama_does_not(tmp_path):
    decomposed = "e\u0301"
    for pre, expected in (("qwen2", 2), ("llama-bpe", 3)):
        tokenizer = load(vocab.convert(tmp_path, vocab.byte_keys(pre=pre)))
        assert len(ids(tokenizer, decomposed)) == expected


def test_merges_split_at_the_first_space_that_can_be_one(tmp_path):
    keys = vocab.byte_keys(("ab", NORMAL), ("abc", NORMAL), merges=["a b", "ab c", "b c"])
    assert tokens(load(vocab.convert(tmp_path, keys)), "abcab") == ["abc", "ab"]


def test_without_merges_ids_are_ranks(tmp_path):
    keys = vocab.byte_keys(("bc", NORMAL), ("ab", NORMAL), ("abc", NORMAL), pre="kimi-k2")
    del keys["tokenizer.ggml.merges"]
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert tokens(tokenizer, "abc") == ["abc"]
    assert tokens(tokenizer, "abab") == ["ab", "ab"]
    assert tokens(tokenizer, "xbca") == ["x", "bc", "a"]


@pytest.mark.parametrize(
    ("pre", "whole"), [("llama-bpe", True), ("gpt-4o", True), ("qwen2", False)]
)
def test_whole_pieces_are_tokens_where_merges_are_ignored(tmp_path, pre, whole):
    tokenizer = load(vocab.convert(tmp_path, vocab.byte_keys(("xyz", NORMAL), pre=pre)))
    assert tokens(tokenizer, "xyz") == (["xyz"] if whole else ["x", "y", "z"])


def test_added_tokens_keep_their_ids_wherever_they_are(tmp_path):
    added = [("<|a|>", CONTROL), ("[PAD258]", UNUSED), ("<|b|>", CONTROL), ("word", NORMAL)]
    added += [("<|c|>", CONTROL), ("<t>", USER), ("[PAD263]", UNUSED), ("[PAD264]", UNUSED)]
    files = vocab.convert(tmp_path, vocab.byte_keys(*added))
    tokenizer = load(files)
    assert ids(tokenizer, "<|a|><|b|><|c|><t>") == [257, 259, 261, 262]
    assert files.generation_config["suppress_tokens"] == [258, 263, 264]
    assert "[PAD263]" not in tokens(tokenizer, "[PAD263]")
    assert tokenizer.get_vocab_size() == 263


def test_user_defined_tokens_match_always_and_are_shown(tmp_path):
    files = vocab.convert(tmp_path, vocab.byte_keys(("<t>", USER), ("<|c|>", CONTROL)))
    tokenizer = load(files)
    assert tokens(tokenizer, "a<t>", as_text=True) == ["a", "<t>"]
    assert tokenizer.decode(ids(tokenizer, "a<t><|c|>"), skip_special_tokens=True) == "a<t>"


def test_merges_cannot_make_special_tokens(tmp_path):
    keys = vocab.byte_keys(("<|", NORMAL), ("<|>", CONTROL), merges=["< |", "<| >"])
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert tokens(tokenizer, "<|>") == ["<|>"]
    assert tokens(tokenizer, "<|>", as_text=True) == ["<|", ">"]


def test_a_control_looking_token_of_the_wrong_kind_is_control(tmp_path):
    files = vocab.convert(tmp_path, vocab.byte_keys(("<|im_end|>", NORMAL), ("<br>", NORMAL)))
    special = [t["content"] for t in files.tokenizer_json["added_tokens"] if t["special"]]
    assert special == ["<|im_end|>"]


# --- SentencePiece vocabularies ---

PIECES = (("▁", -9.0, 1), ("a", -9.0, 1), ("b", -9.0, 1), ("ab", -1.0, 1), ("▁a", -2.0, 1))
PIECES += (("bb", -3.0, 1), ("▁ab", -4.0, 1))


def test_the_best_score_merges_first_and_the_left_one_on_ties(tmp_path):
    tokenizer = load(vocab.convert(tmp_path, vocab.spm_keys(*PIECES, add_space_prefix=False)))
    assert tokens(tokenizer, " ab") == ["▁ab"]
    assert tokens(tokenizer, "abb") == ["ab", "b"]
    assert tokens(tokenizer, "bbb") == ["bb", "b"]


@pytest.mark.parametrize("prefix", [None, True, False])
def test_the_space_before_a_text(tmp_path, prefix):
    more = {} if prefix is None else {"add_space_prefix": prefix}
    tokenizer = load(vocab.convert(tmp_path, vocab.spm_keys(*PIECES, **more)))
    first = ["ab"] if prefix is False else ["▁ab"]
    assert tokens(tokenizer, "ab") == first
    assert tokens(tokenizer, "ab</s>ab") == [*first, "</s>", *first]
    assert tokens(tokenizer, "ab", as_text=True) == first
    assert tokens(tokenizer, "") == []
    for text in ("ab ab", " ab", "  ab ", "ab\n"):
        assert tokenizer.decode(ids(tokenizer, text)) == text


def test_unknown_characters_become_bytes_and_come_back(tmp_path):
    tokenizer = load(vocab.convert(tmp_path, vocab.spm_keys(*PIECES, add_space_prefix=False)))
    assert tokens(tokenizer, "aé") == ["a", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids(tokenizer, "aé😀b")) == "aé😀b"


def test_the_text_of_a_byte_token_is_text(tmp_path):
    tokenizer = load(vocab.convert(tmp_path, vocab.spm_keys(*PIECES)))
    assert "<0x0A>" not in tokens(tokenizer, "<0x0A>")


def test_user_defined_spaces_match_escaped_spaces(tmp_path):
    keys = vocab.spm_keys(*PIECES, ("  ", -1000.0, 4), add_space_prefix=False)
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert tokens(tokenizer, "a  b") == ["a", "▁▁", "b"]


def test_phi3_special_tokens_swallow_white_space(tmp_path):
    keys = vocab.spm_keys(*PIECES, ("<|user|>", 0.0, 3), ("<|placeholder1|>", 0.0, 3))
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert tokens(tokenizer, "<|user|>\n ab<s> ab") == ["<|user|>", "▁ab", "<s>", "▁", "▁ab"]


# --- roles ---


def test_default_roles_and_bos_of_sentencepiece(tmp_path):
    files = vocab.convert(tmp_path, vocab.spm_keys(*PIECES))
    assert tokens(load(files), "ab", special=True) == ["<s>", "▁ab"]
    assert files.generation_config["bos_token_id"] == 1
    assert files.generation_config["eos_token_id"] == [2]
    assert files.tokenizer_config["bos_token"] == "<s>"
    assert files.tokenizer_config["unk_token"] == "<unk>"


@pytest.mark.parametrize(
    ("pre", "flag", "added"),
    [
        ("llama-bpe", None, True),
        ("tekken", None, True),
        ("gpt-2", None, False),
        ("qwen2", None, False),
        ("gpt-2", True, True),
        ("llama-bpe", False, False),
    ],
)
def test_bos_of_byte_level_vocabularies(tmp_path, pre, flag, added):
    more = {} if flag is None else {"add_bos_token": flag}
    keys = vocab.byte_keys(("<b>", CONTROL), pre=pre, bos_token_id=257, **more)
    files = vocab.convert(tmp_path, keys)
    assert ids(load(files), "xy", special=True)[:1] == (
        [257] if added else [load(files).token_to_id("x")]
    )
    assert files.tokenizer_config["add_bos_token"] is added


def test_bos_and_eos_around_a_text_and_a_pair(tmp_path):
    keys = vocab.byte_keys(
        ("<b>", CONTROL),
        ("<e>", CONTROL),
        bos_token_id=257,
        eos_token_id=258,
        add_bos_token=True,
        add_eos_token=True,
    )
    tokenizer = load(vocab.convert(tmp_path, keys))
    assert tokens(tokenizer, "x", special=True) == ["<b>", "x", "<e>"]
    pair = tokenizer.encode("x", "y").tokens
    assert pair == ["<b>", "x", "<e>", "<b>", "y", "<e>"]


def test_without_an_id_there_is_no_bos_and_token_11_is_no_eos(tmp_path):
    files = vocab.convert(tmp_path, vocab.byte_keys(add_bos_token=True))
    assert "bos_token_id" not in files.generation_config
    assert "eos_token_id" not in files.generation_config
    assert files.tokenizer_config["add_bos_token"] is False


def test_ids_out_of_range_mean_none(tmp_path):
    none = tiny.typed(tiny.T.INT32, -1)
    files = vocab.convert(
        tmp_path, vocab.byte_keys(padding_token_id=none, bos_token_id=4_000_000_000)
    )
    assert "pad_token_id" not in files.generation_config
    assert "bos_token_id" not in files.generation_config


def stops(tmp_path, *added, **more):
    files = vocab.convert(tmp_path, vocab.byte_keys(*added, **more))
    return [load(files).id_to_token(i) for i in files.generation_config.get("eos_token_id", [])]


def test_generation_ends_at_eos_first_and_at_every_end_of_turn(tmp_path):
    added = [("<e>", CONTROL), ("<|eot_id|>", CONTROL), ("<x>", CONTROL), ("<|im_end|>", CONTROL)]
    got = stops(tmp_path, *added, eos_token_id=257, eot_token_id=259)
    assert got == ["<e>", "<x>", "<|eot_id|>", "<|im_end|>"]


def test_end_of_message_is_no_end_where_return_and_call_are(tmp_path):
    harmony = [("<|return|>", CONTROL), ("<|call|>", CONTROL), ("<|end|>", CONTROL)]
    assert stops(tmp_path, *harmony) == ["<|return|>", "<|call|>"]
    assert stops(tmp_path, harmony[0], harmony[2]) == ["<|return|>", "<|end|>"]


def test_markup_that_looks_like_an_end_is_none(tmp_path):
    assert stops(tmp_path, ("</s>", USER), ("<e>", CONTROL), eos_token_id=258) == ["<e>"]


def test_sampling_defaults_come_only_from_the_file(tmp_path):
    plain = vocab.convert(tmp_path, vocab.byte_keys()).generation_config
    assert not {"temperature", "top_k", "top_p", "do_sample"} & plain.keys()
    keys = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20} | vocab.byte_keys()
    config = vocab.convert(tmp_path, keys).generation_config
    assert (config["temperature"], config["top_k"], config["do_sample"]) == (0.5, 20, True)


def test_files_are_written_as_they_are(tmp_path):
    template = "{{ a }}\r\n é \n"
    keys = vocab.byte_keys() | {"tokenizer.chat_template": template, "general.architecture": "m"}
    files = vocab.convert(tmp_path, keys | {"m.context_length": 77})
    files.write(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_bytes().decode() == template
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 77
    assert json.loads((tmp_path / "generation_config.json").read_text()) == files.generation_config
    assert ids(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), " a") == [256]


# --- malformed vocabularies ---


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, "tokenizer 'bert' is not supported"),
        (vocab.byte_keys() | {"tokenizer.ggml.tokens": []}, "tokens'"),
        (vocab.byte_keys(token_type=[1]), "1 kinds for 257 tokens"),
        (vocab.byte_keys(merges=["ab"]), "entry 0, 'ab', has no space"),
        (vocab.byte_keys(tokens=["a" * 5000]), "a token of 5000 characters"),
        (vocab.spm_keys(scores=[0.5]), "1 scores for 259 tokens"),
        (vocab.byte_keys(tokens=[1, 2]), "expected an array of strings"),
        (vocab.byte_keys(bos_token_id="a"), "bos_token_id': expected an integer"),
    ],
)
def test_malformed_vocabularies_are_refused(tmp_path, keys, message):
    with pytest.raises(ModelError, match=message):
        vocab.convert(tmp_path, keys)


def test_missing_scores_are_named(tmp_path):
    keys = vocab.spm_keys(*PIECES)
    del keys["tokenizer.ggml.scores"]
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.scores': is missing"):
        vocab.convert(tmp_path, keys)


def test_empty_and_repeated_tokens_do_not_move_others(tmp_path):
    added = [("", NORMAL), ("x", NORMAL), ("", NORMAL), ("word", NORMAL), ("<|c|>", CONTROL)]
    tokenizer = load(vocab.convert(tmp_path, vocab.byte_keys(*added)))
    assert ids(tokenizer, "<|c|>x") == [261, tokenizer.token_to_id("x")]
    assert tokenizer.token_to_id("word") == 260


def test_merges_of_missing_tokens_are_left_out(tmp_path):
    keys = vocab.byte_keys(merges=["Ġ a", "q r", "zz y"])
    assert tokens(load(vocab.convert(tmp_path, keys)), " a qr") == ["Ġa", "Ġ", "q", "r"]


def test_a_huge_vocabulary_without_merges_is_refused_quickly(tmp_path):
    long = [f"{i:04}" + "x" * 4092 for i in range(5000)]
    keys = vocab.byte_keys(tokens=long, token_type=[1] * len(long))
    del keys["tokenizer.ggml.merges"]
    with pytest.raises(ModelError, match="characters, more than"):
        vocab.convert(tmp_path, keys)
