"""Conversations: history, taking back, stopping, and what templates get of a reply."""

import json

import pytest
from kit import replies

import moesaic
from moesaic.runtime import Completion, Piece, Timings, Usage
from moesaic.runtime.chat import encode_chat
from moesaic.runtime.conversation import Conversation
from moesaic.runtime.prefix import Prefix
from moesaic.runtime.sampling import SamplingParams

GREEDY = {"temperature": 0, "max_tokens": 12}
HARMONY = """{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' -%}
<|channel|>{{ 'analysis' if m.thinking else 'final' }}{% endif %}<|message|>{{ m.content }}<|end|>
{%- endfor %}<|start|>assistant"""


class Recorded:
    """A runtime that answers with recorded streams of gpt-oss's tokens."""

    def __init__(self, tokenizer, *streams):
        self.tokenizer = tokenizer
        self.defaults = SamplingParams()
        self.limits = {"context": 4096}
        self.prompts = []
        self._streams = list(streams)

    def chat_tokens(self, messages, **template_vars):
        return encode_chat(self.tokenizer, HARMONY, messages, **template_vars)

    def new_prefix(self):
        return Prefix(windowed=True)

    def stream(self, prompt, *, reply, prefix, **sampling):
        assert reply
        self.prompts.append(self.tokenizer.decode(prompt, skip_special=False))
        tokens = self.tokenizer.encode(self._streams.pop(0), add_special=False, parse_special=True)
        last = tokens.pop() if tokens[-1] in self.tokenizer.eos_ids else None
        for token in tokens:
            yield Piece("", [token])
        usage, timings = Usage(len(prompt), len(tokens)), Timings(0, 0, 0)
        reason = "length" if last is None else "stop"
        yield Piece("", [], None, Completion("", tokens, reason, usage, timings, None, last))


@pytest.fixture
def gptoss(tmp_path):
    return replies.gptoss(tmp_path)


def said(events):
    return "".join(event.text for event in events)


def test_a_conversation_is_what_chat_makes_of_its_messages(demo_plan):
    with moesaic.Runtime(demo_plan) as rt:
        talk = Conversation(rt, system="Be brief.")
        first = said(talk.say("Good morning!", **GREEDY))
        second = said(talk.say("And then?", **GREEDY))
        system = {"role": "system", "content": "Be brief."}
        messages = [system, {"role": "user", "content": "Good morning!"}]
        assert first == rt.chat(messages, **GREEDY).text
        messages += [
            {"role": "assistant", "content": first},
            {"role": "user", "content": "And then?"},
        ]
        last = rt.chat(messages, **GREEDY)
        assert second == last.text
        assert talk.used == last.usage.total_tokens
        assert talk.completion.tokens == last.tokens
        assert talk.messages == [*messages[1:], {"role": "assistant", "content": second}]


def test_taking_back_and_trying_again(demo_plan):
    with moesaic.Runtime(demo_plan) as rt:
        talk = Conversation(rt)
        with pytest.raises(moesaic.RequestError, match="nothing to try again"):
            talk.retry()
        first = said(talk.say("Hello", **GREEDY))
        second = said(talk.say("Well?", **GREEDY))
        assert said(talk.retry(**GREEDY)) == second
        assert len(talk.messages) == 4
        assert talk.undo() == "Well?"
        assert said(talk.say("Well?", **GREEDY)) == second
        assert talk.drop_oldest() == 1
        assert [m["content"] for m in talk.messages] == ["Well?", second]
        assert talk.drop_oldest(5) == 1 and talk.messages == []
        assert talk.undo() is None
        assert said(talk.say("Hello", **GREEDY)) == first
        talk.clear()
        assert (talk.messages, talk.used) == ([], 0)


def test_a_reply_that_is_stopped_is_kept_and_frees_its_sequence(demo_plan):
    with moesaic.Runtime(demo_plan, sequences=1) as rt:
        talk = Conversation(rt)
        whole = rt.chat([{"role": "user", "content": "Hello"}], temperature=0).text
        events = talk.say("Hello", temperature=0)
        begun = next(events).text + next(events).text
        events.close()
        assert begun and whole.startswith(begun)
        assert talk.messages[-1] == {"role": "assistant", "content": begun}
        assert talk.completion is None
        assert said(talk.say("Go on", **GREEDY))


def test_a_full_context_is_an_error_and_says_nothing(demo_plan):
    with moesaic.Runtime(demo_plan, context=36) as rt:
        talk = Conversation(rt)
        said(talk.say("Hello", temperature=0))
        assert talk.used == 36 and talk.completion.finish_reason == "length"
        before = list(talk.messages)
        with pytest.raises(moesaic.RequestError, match="context is 36") as caught:
            talk.say("More?")
        assert "/drop" in caught.value.hint
        assert talk.messages == before
        talk.drop_oldest()
        assert said(talk.say("More?", **GREEDY))


def test_a_wrong_argument_says_nothing(demo_plan):
    with moesaic.Runtime(demo_plan) as rt:
        talk = Conversation(rt)
        with pytest.raises(moesaic.RequestError, match="temperature"):
            talk.say("Hello", temperature=-1)
        assert talk.messages == []


def test_stop_strings_end_the_answer(demo_plan):
    with moesaic.Runtime(demo_plan) as rt:
        talk = Conversation(rt)
        whole = said(talk.say("Hello", **GREEDY))
        stop = whole.split()[2]
        before = whole[: whole.index(stop)]
        assert said(talk.retry(stop=stop, **GREEDY)) == before
        assert talk.messages[-1]["content"] == before


def test_harmony_thoughts_are_apart_and_not_given_back(gptoss):
    rt = Recorded(
        gptoss,
        "<|channel|>analysis<|message|>Greet.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Hello!<|return|>",
        "<|channel|>final<|message|>Fine.<|return|>",
    )
    talk = Conversation(rt)
    events = list(talk.say("Hi"))
    assert said(e for e in events if e.channel == "analysis") == "Greet."
    assert said(e for e in events if e.channel == "final") == "Hello!"
    assert events[-1].end == "return"
    assert talk.messages[-1] == {"role": "assistant", "content": "Hello!", "thinking": "Greet."}
    said(talk.say("How are you?"))
    assert rt.prompts[1] == (
        "<|start|>user<|message|>Hi<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello!<|end|>"
        "<|start|>user<|message|>How are you?<|end|><|start|>assistant"
    )
    json.dumps(talk.messages)


def test_a_stop_string_in_thoughts_ends_nothing(gptoss):
    rt = Recorded(
        gptoss,
        "<|channel|>analysis<|message|>END it?<|end|><|start|>assistant"
        "<|channel|>final<|message|>So be it. END of story<|return|>",
    )
    talk = Conversation(rt)
    assert said(talk.say("Hi", stop="END")) == "END it?So be it. "
    assert talk.messages[-1]["content"] == "So be it. "


@pytest.mark.parametrize(
    ("stream", "content"),
    [
        ("<|channel|>analysis<|message|>Hm", ""),
        ("<|channel|>analysis<|message|>Hm<|return|>", ""),
        ("<|channel|>commentary<|message|>First I look.<|end|>", "First I look."),
        ("<|channel|>commentary to=functions.f json<|message|>{}<|call|>", ""),
        ("No marks at all<|return|>", "No marks at all"),
    ],
)
def test_replies_without_an_answer(stream, content, gptoss):
    talk = Conversation(Recorded(gptoss, stream))
    list(talk.say("Hi"))
    assert [m["role"] for m in talk.messages] == ["user", "assistant"]
    assert talk.messages[-1]["content"] == content


def test_thoughts_in_tags(tmp_path):
    tokenizer = replies.thinking(tmp_path)
    rt = Recorded(tokenizer, "<think>\nHm.\n</think>\n\nYes.<|im_end|>")
    talk = Conversation(rt)
    list(talk.say("Hi"))
    assert talk.messages[-1] == {"role": "assistant", "content": "Yes.", "thinking": "Hm."}
