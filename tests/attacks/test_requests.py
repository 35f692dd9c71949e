"""Requests that cannot be served: each gets one clear error with a hint, and harms no other."""

import math
import threading

import numpy as np
import pytest

import moesaic
from moesaic.errors import MoesaicError, RequestError
from moesaic.runtime.foreign import mark

CASE = "gpt-oss-mxfp4"
GREEDY = {"max_tokens": 3, "temperature": 0, "ignore_eos": True}
NAN, INF = math.nan, math.inf

# For each argument values that are wrong, and values at the edge that are right.
ARGUMENTS = {
    "max_tokens": ([0, -1, 2.5, "3", None, True, NAN, [1]], [1, np.int64(2)]),
    "temperature": (
        [-0.1, -1e-320, NAN, INF, -INF, "hot", None, True, [1], 10**400],
        [0, 1e-320, 1e308, 10**30, np.float32(0.5), np.float64(2)],
    ),
    "top_k": ([-1, 1.5, "2", None, 2**31, 10**30, True], [0, 1, 2**31 - 1, np.int32(3)]),
    "top_p": ([0, -0.5, 1.0001, NAN, INF, "1", None], [1, 1e-320, np.float32(0.5)]),
    "min_p": ([-0.1, 1.1, NAN, "x", None], [0, 1, 1e-320]),
    "repetition_penalty": ([0, -1, NAN, INF, 1e-320, 1e300, "x", None], [1e-6, 1e6]),
    "presence_penalty": ([NAN, INF, -INF, 1e300, -1e300, "x", None], [-1e6, 1e6]),
    "frequency_penalty": ([NAN, INF, -INF, 1e300, -1e300, "x", None], [-1e6, 1e6]),
    "seed": ([-1, 2**64, 1.5, "x", True], [0, 2**64 - 1, None, np.uint64(7)]),
    "stop": (["", [""], 3, [3], [None], {"a": 1}, b"ab", {"ab"}], [None, [], ("ab",), "a" * 9999]),
    "ignore_eos": (["no", 1, 0, None], [True, False]),
    "logit_bias": (
        [
            [1], None, {1: NAN}, {1: INF}, {1: 1e31}, {1: 10**400}, {1: "x"}, {-1: 1.0},
            {277: 1.0}, {10**12: 1.0}, {10**30: 1.0}, {"1": 1.0}, {1.5: 1.0}, {True: 1.0},
        ],
        [{}, {0: 1e30}, {276: -1e40}, {np.int64(3): np.float32(1)}],
    ),
    "logprobs": ([-1, 21, 1.5, "x", True, 10**30], [None, 0, 20]),
}  # fmt: skip

PROMPTS = {
    "empty text": "",
    "no tokens": [],
    "a list of no tokens": [[]],
    "an empty text among others": ["ab", ""],
    "negative": [1, -1],
    "beyond the vocabulary": [10**6],
    "beyond every type": [10**30],
    "a float": [1.5],
    "a bool": [True],
    "None inside": [None],
    "mixed": [1, "ab"],
    "nested": [[1], [2, [3]]],
    "longer than the context": [5] * 5000,
    "as long as the context": [5] * 4096,
    "long text": "ab" * 100_000,
    "None": None,
    "a number": 5,
    "bytes": b"ab",
    "a bytearray": bytearray(b"ab"),
    "a mapping": {"a": 1},
    "a set": {1, 2},
    "an iterator": iter([1, 2]),
    "floats": np.array([1.5]),
    "an array without axes": np.array(3),
}

CHATS = {
    "None": None,
    "none": [],
    "a number": 5,
    "text": "hi",
    "a mapping": {"role": "user", "content": "hi"},
    "numbers": [1],
    "no role": [{"content": "a"}],
    "a role that is no name": [{"role": "us<er", "content": "a"}],
    "a role that is no text": [{"role": 1, "content": "a"}],
    "an object": [{"role": "user", "content": object()}],
    "a key that is no text": [{"role": "user", "content": {1: 2}}],
    "unassigned characters": [{"role": "user", "content": str.__str__(mark("a"))}],
    "longer than the context": [{"role": "user", "content": "x" * 200_000}],
}
CHATS["deep"] = [{"role": "user", "content": "a"}]
for _ in range(40):
    CHATS["deep"] = [{"role": "user", "content": CHATS["deep"]}]


@pytest.fixture(scope="module")
def rt(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def expected(rt):
    return rt.generate("ab", **GREEDY).tokens


def refused(call, *said):
    """Asserts that a call raises an error of ours that says this, in a line, with a hint."""
    with pytest.raises(RequestError) as caught:
        call()
    message = str(caught.value)
    assert caught.value.hint, message
    assert "\n" not in message
    assert len(message) < 300
    for text in said:
        assert text in message
    return message


def cases(which):
    return [
        pytest.param(name, value, id=f"{name}={value!r:.30}")
        for name, values in ARGUMENTS.items()
        for value in values[which]
    ]


@pytest.mark.parametrize(("name", "value"), cases(0))
def test_arguments_out_of_range(name, value, rt, expected):
    arguments = {"max_tokens": 2, name: value}
    messages = [{"role": "user", "content": "ab"}]
    for call in (
        lambda: rt.generate("ab", **arguments),
        lambda: rt.generate(["ab", [1, 2]], **arguments),
        lambda: list(rt.stream("ab", **arguments)),
        lambda: rt.chat(messages, **arguments),
        lambda: list(rt.chat(messages, stream=True, **arguments)),
    ):
        refused(call, name)
    assert rt.generate("ab", **GREEDY).tokens == expected


@pytest.mark.parametrize(("name", "value"), cases(1))
def test_arguments_at_the_edge_are_served(name, value, rt):
    reply = rt.generate("ab", **({"max_tokens": 2} | {name: value}))
    assert len(reply.tokens) <= 2


def test_arguments_that_do_not_exist(rt):
    for name in ("temprature", "Temperature", "params", "n", ""):
        message = refused(lambda name=name: rt.generate("ab", **{name: 1}), "unknown")
        assert name in message


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_prompts(prompt, rt, expected):
    refused(lambda: rt.generate(prompt, max_tokens=1))
    refused(lambda: list(rt.stream(prompt, max_tokens=1)))
    assert rt.generate("ab", **GREEDY).tokens == expected


@pytest.mark.parametrize("text", ["\ud800", "\0", "\ufffe", "a\u0301" * 50, "\u202e", "😀"])
def test_texts_that_are_only_strange_are_served(text, rt):
    assert len(rt.generate(text, **GREEDY).tokens) == 3


@pytest.mark.parametrize(
    "tokens",
    ["ab", "", [], None, 3, [[1]], [1.5], [-1], [277], [True], [5] * 5000, np.zeros((2, 2), int)],
    ids=repr,
)
def test_tokens_of_logits(tokens, rt, expected):
    refused(lambda: rt.logits(tokens))
    assert rt.generate("ab", **GREEDY).tokens == expected


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
def test_conversations(messages, rt, expected):
    refused(lambda: rt.chat(messages, max_tokens=1))
    assert rt.generate("ab", **GREEDY).tokens == expected


@pytest.mark.parametrize(
    "variables", [3, "ab", [1], {3: 3}, {"messages": []}, {"tokenizer": 1}, {"x": object()}]
)
def test_variables_of_templates(variables, rt):
    messages = [{"role": "user", "content": "ab"}]
    refused(lambda: rt.chat(messages, max_tokens=1, template_vars=variables))


def test_no_variables_of_templates(rt):
    for variables in (None, {}, {"unused": 1}):
        messages = [{"role": "user", "content": "ab"}]
        assert rt.chat(messages, max_tokens=1, template_vars=variables).tokens


@pytest.mark.parametrize("name", ["context", "sequences", "batch", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 10**6, 2**31, 2**64, 10**30, NAN, [1]])
def test_limits_that_cannot_be(name, value, plan_of):
    with pytest.raises(MoesaicError) as caught:
        moesaic.Runtime(plan_of(CASE), **{name: value})
    assert name in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("name", ["context", "sequences", "batch"])
def test_limits_a_little_above_the_plan(name, plan_of):
    with moesaic.Runtime(plan_of(CASE)) as rt:
        most = rt.limits[name]
    with moesaic.Runtime(plan_of(CASE), **{name: most}) as rt:
        assert rt.limits[name] == most
    with pytest.raises(
        RequestError, match=f"{name} {most + 1} is above the plan's {most}"
    ) as error:
        moesaic.Runtime(plan_of(CASE), **{name: most + 1})
    assert f"--{name} {most + 1}" in error.value.hint


@pytest.mark.parametrize("value", [1, np.int64(1)])
@pytest.mark.parametrize("name", ["sequences", "batch", "threads"])
def test_limits_of_one(name, value, plan_of, expected):
    with moesaic.Runtime(plan_of(CASE), **{name: value}) as rt:
        replies = rt.generate(["ab"] * 3, **GREEDY)
        assert [reply.tokens for reply in replies] == [expected] * 3


def test_a_context_of_one_serves_nothing_but_logits(plan_of):
    with moesaic.Runtime(plan_of(CASE), context=1) as rt:
        refused(lambda: rt.generate([5]), "1 tokens", "context of this runtime is 1")
        assert rt.logits([5]).shape == (1, rt.plan.model.vocab_size)
        refused(lambda: rt.logits([5, 5]), "2 tokens")


def test_the_context_is_filled_to_the_last_token(plan_of):
    with moesaic.Runtime(plan_of(CASE), context=33, batch=7) as rt:
        refused(lambda: rt.generate([5] * 33), "33 tokens")
        full = {"max_tokens": 10**9, "temperature": 0, "ignore_eos": True}
        for count in (32, 31, 1):
            reply = rt.generate([5] * count, **full)
            assert len(reply.tokens) == 33 - count
            assert reply.finish_reason == "length"
        assert rt.logits([5] * 33).shape[0] == 33


def test_one_bad_prompt_of_a_batch_stops_it_before_it_starts(plan_of):
    with moesaic.Runtime(plan_of(CASE), record_usage=True) as rt:
        refused(lambda: rt.generate(["ab", [1, -1], "ab"], **GREEDY), "token 1")
        refused(lambda: rt.generate(["ab", [5] * 5000], **GREEDY), "5000")
        assert rt.usage().tokens == 0


def test_bad_requests_of_many_threads_disturb_no_good_one(rt, expected):
    failures, replies = [], []

    def bad():
        for prompt in ([], [-1], [5] * 5000, None):
            try:
                rt.generate(prompt, **GREEDY)
            except RequestError as error:
                failures.append(error)

    def good():
        replies.extend(rt.generate("ab", **GREEDY).tokens for _ in range(4))

    workers = [threading.Thread(target=work) for work in [bad, good] * 3]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(failures) == 12
    assert replies == [expected] * 12
