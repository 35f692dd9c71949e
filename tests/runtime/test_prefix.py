"""A conversation's turns run only what is new, and say the same as if they ran everything."""

from itertools import pairwise

import pytest

import moesaic
from moesaic.runtime.conversation import Conversation

# Full attention, windows on some layers (twice), and other rope tables beyond 48 tokens.
CASES = ("llama-f32", "gpt-oss-mxfp4", "gemma3-mixed", "phimoe-f32")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
# As Harmony: what the model is given back is less than it said.
FORGETFUL = "{% for m in messages %}{{ m.role }}:{{ m.content[:9] }}\n{% endfor %}assistant:"
SAMPLING = {"temperature": 1.0, "seed": 7, "ignore_eos": True, "max_tokens": 70}
SAID = ("Hello there", "the other one", "and " * 60, "on", "in the end")


@pytest.fixture(params=CASES)
def runtime(request, plan_of):
    with moesaic.Runtime(plan_of(request.param), batch=48) as rt:
        rt.tokenizer.chat_template = TEMPLATE
        yield rt


def replies(talk, texts=SAID):
    """Tokens of the replies, and how many tokens of each prompt were kept."""
    done = []
    for text in texts:
        list(talk.say(text, **SAMPLING))
        done.append(talk.completion)
    return [d.tokens for d in done], [d.usage.cached_tokens for d in done]


@pytest.mark.parametrize("template", [TEMPLATE, FORGETFUL])
def test_replies_are_the_same_with_and_without(runtime, template):
    runtime.tokenizer.chat_template = template
    expected, none = replies(Conversation(runtime, reuse=False))
    tokens, kept = replies(Conversation(runtime))
    assert tokens == expected
    assert none == [0] * len(SAID)
    assert kept[0] == 0 and all(b > a for a, b in pairwise(kept))


def test_all_of_the_last_prompt_is_kept(runtime):
    runtime.tokenizer.chat_template = FORGETFUL
    talk = Conversation(runtime)
    list(talk.say("the first of all", **SAMPLING))
    first = talk.completion.usage.prompt_tokens
    list(talk.say("and more", **SAMPLING))
    assert talk.completion.usage.cached_tokens >= first - 1


def test_taking_back_and_trying_again(runtime):
    talk = Conversation(runtime)
    expected, _ = replies(talk, SAID[:3])
    list(talk.retry(**SAMPLING))
    assert talk.completion.tokens == expected[-1]
    talk.undo()
    talk.undo()
    tokens, _ = replies(talk, SAID[1:3])
    assert tokens == expected[1:]
    talk.clear()
    assert replies(talk, SAID[:3])[0] == expected


def test_a_stopped_reply_is_gone_on_from(runtime):
    talk, other = Conversation(runtime), Conversation(runtime, reuse=False)
    for t in (talk, other):
        events = t.say("Hello", **SAMPLING)
        for _ in range(5):
            next(events)
        events.close()
    assert talk.messages == other.messages
    assert replies(talk, ["Go on"])[0] == replies(other, ["Go on"])[0]


def test_kept_sequences_give_way(plan_of):
    with moesaic.Runtime(plan_of("gpt-oss-mxfp4"), sequences=2) as rt:
        rt.tokenizer.chat_template = TEMPLATE
        expected, _ = replies(Conversation(rt, reuse=False))
        talks = [Conversation(rt) for _ in range(3)]
        found = [[], [], []]
        for text in SAID:
            for talk, tokens in zip(talks, found, strict=True):
                tokens += replies(talk, [text])[0]
                rt.logits([1, 2, 3])
            assert len(rt.generate(["ab", "abc", "a"], max_tokens=3)) == 3
        assert found == [expected] * 3


def test_one_sequence_is_enough(plan_of):
    with moesaic.Runtime(plan_of("gpt-oss-mxfp4"), sequences=1) as rt:
        rt.tokenizer.chat_template = TEMPLATE
        expected, _ = replies(Conversation(rt, reuse=False))
        assert replies(Conversation(rt))[0] == expected
