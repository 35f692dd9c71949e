"""Phi through the public interface: its conversations, what ends them, its memory."""

import numpy as np
import pytest
from conftest import MODELS
from kit.edited_gguf import edited

import moesaic
from moesaic.runtime.chat import encode_chat

CASE = "phimoe-f32"
TALK = [
    {"role": "system", "content": "it is"},
    {"role": "user", "content": "that <|end|> is"},
    {"role": "assistant", "content": "in"},
    {"role": "user", "content": "of"},
]


@pytest.fixture
def rt(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as runtime:
        yield runtime


def special(tokenizer, text):
    """The id of a special token."""
    return next(i for i, token in tokenizer.added_tokens.items() if token.content == text)


def test_text_begins_with_bos_unless_the_file_says_otherwise(rt, tmp_path):
    ids = rt.tokenizer.encode("the end")
    assert ids[0] == rt.tokenizer.bos_id == 1
    assert rt.tokenizer.decode(ids) == "the end"
    keys = {"tokenizer.ggml.add_bos_token": False}
    path = edited(MODELS / f"{CASE}.gguf", tmp_path / "x.gguf", keys)
    moesaic.partition(path, tmp_path / "plan")
    with moesaic.Runtime(tmp_path / "plan") as other:
        assert other.tokenizer.encode("the end") == ids[1:]


def test_a_conversation_as_ids(rt):
    """Special tokens swallow the line ends after them; what users spell out stays text."""
    tokenizer = rt.tokenizer
    found = encode_chat(tokenizer, tokenizer.chat_template, TALK)
    expected = []
    for message in TALK:
        expected.append(special(tokenizer, f"<|{message['role']}|>"))
        expected += tokenizer.encode(message["content"], add_special=False)
        expected.append(special(tokenizer, "<|end|>"))
    expected.append(special(tokenizer, "<|assistant|>"))
    assert [i for i in found if i != tokenizer.bos_id] == expected
    assert found.count(special(tokenizer, "<|end|>")) == len(TALK)
    newline = tokenizer.encode("\n", add_special=False)[-1]
    assert newline not in found


def test_a_reply_ends_with_its_turn(rt):
    ends = {special(rt.tokenizer, text) for text in ("<|end|>", "<|endoftext|>")}
    assert ends <= rt.tokenizer.eos_ids
    (end,) = ends - {special(rt.tokenizer, "<|endoftext|>")}
    reply = rt.chat(TALK, temperature=0, max_tokens=9, logit_bias={end: 1000.0})
    assert (reply.finish_reason, reply.tokens, reply.text) == ("stop", [], "")


def test_padding_is_never_sampled(rt):
    tokens = np.load(MODELS / f"{CASE}.npz")["tokens"].tolist()
    vocab = rt.plan.model.vocab_size
    unused = rt.tokenizer.unused_ids(vocab)
    assert unused
    bias = dict.fromkeys(unused, 100.0)
    reply = rt.generate(tokens, max_tokens=9, temperature=0, logit_bias=bias, ignore_eos=True)
    assert not set(reply.tokens) & set(unused)


def test_planned_memory_is_what_is_held(rt):
    for row in rt.memory():
        for purpose in ("weights", "kv", "activations"):
            assert row[purpose] == row["planned"][purpose]
