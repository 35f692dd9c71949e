"""Longrope through the public interface: the rope table follows the current length, bit for bit."""

import numpy as np
import pytest
from conftest import MODELS
from kit.edited_gguf import edited

import moesaic
from moesaic.errors import RequestError
from moesaic.runtime import _native
from moesaic.runtime.plan import load_plan
from moesaic.runtime.request import Request

CASE = "phimoe-f32"
ORIGINAL = 48  # tokens of its original context
GREEDY = {"temperature": 0, "ignore_eos": True}


def prompt(length):
    """A prompt of any length."""
    tokens = np.load(MODELS / f"{CASE}.npz")["tokens"].tolist()
    return (tokens + tokens[1:])[:length]


@pytest.fixture
def rt(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as runtime:
        yield runtime


@pytest.fixture
def seen(monkeypatch):
    """The logits that each request is given, by its prompt."""
    rows: dict[tuple[int, ...], list[np.ndarray]] = {}
    accept = Request.accept

    def spy(self, logits):
        rows.setdefault(tuple(self._prompt), []).append(logits.copy())
        accept(self, logits)

    monkeypatch.setattr(Request, "accept", spy)
    return rows


def assert_as_fresh(rt, tokens, output, rows):
    """Each token was sampled from the logits of a fresh forward pass of all tokens before it."""
    assert len(rows) == len(output)
    for i, row in enumerate(rows):
        fresh = rt.logits(tokens + output[:i])[-1]
        np.testing.assert_array_equal(row.view(np.uint32), fresh.view(np.uint32))
        assert output[i] == fresh.argmax()


@pytest.mark.parametrize("length", [30, 47, 48, 49, 60])
@pytest.mark.parametrize("options", [{}, {"batch": 7}, {"batch": 1}, {"threads": 3}])
def test_every_step_has_the_logits_of_a_fresh_forward_pass(plan_of, seen, length, options):
    tokens = prompt(length)
    with moesaic.Runtime(plan_of(CASE), **options) as rt:
        reply = rt.generate(tokens, max_tokens=22, **GREEDY)
        assert_as_fresh(rt, tokens, reply.tokens, seen[tuple(tokens)])
    assert reply.finish_reason == "length"
    assert reply.usage.prompt_tokens == length
    assert reply.usage.completion_tokens == 22


def test_the_tables_differ(rt):
    """Else the other tests would show nothing."""
    short, long = rt.logits(prompt(48)), rt.logits(prompt(49))
    assert np.abs(short[1:] - long[1:48]).max(axis=1).min() > 1e-3
    np.testing.assert_array_equal(short[0], long[0])  # position 0 does not turn


def test_logits_of_any_length_are_those_of_any_chunks(plan_of):
    for length in (47, 48, 49, 64, 79):
        tokens = prompt(length)
        found = []
        for options in ({}, {"batch": 7}, {"batch": 1}, {"threads": 3}):
            with moesaic.Runtime(plan_of(CASE), **options) as rt:
                found.append(rt.logits(tokens))
        for other in found[1:]:
            np.testing.assert_array_equal(found[0].view(np.uint32), other.view(np.uint32))


@pytest.mark.parametrize("batch", [None, 9])
def test_neighbours_on_both_sides_change_nothing(plan_of, seen, batch):
    lengths = (60, 10, 48, 40, 1, 55, 47)
    prompts = [prompt(n)[::-1] if n % 2 else prompt(n) for n in lengths]
    with moesaic.Runtime(plan_of(CASE), batch=batch) as rt:
        replies = rt.generate(prompts, max_tokens=20, **GREEDY)
        for tokens, reply in zip(prompts, replies, strict=True):
            assert_as_fresh(rt, tokens, reply.tokens, seen[tuple(tokens)])
    with moesaic.Runtime(plan_of(CASE), sequences=2, batch=batch) as rt:
        queued = rt.generate(prompts, max_tokens=20, **GREEDY)
    assert [reply.tokens for reply in queued] == [reply.tokens for reply in replies]
    assert [reply.text for reply in queued] == [reply.text for reply in replies]


def test_sampling_goes_on_where_it_was(rt):
    """Seed and penalties see one sequence, although its cache is computed anew."""
    sampling = {"temperature": 0.8, "seed": 5, "frequency_penalty": 0.5, "ignore_eos": True}
    alone = rt.generate(prompt(44), max_tokens=12, logprobs=2, **sampling)
    together = rt.generate([prompt(44), prompt(70)], max_tokens=12, logprobs=2, **sampling)[0]
    assert alone.tokens == together.tokens
    assert alone.logprobs == together.logprobs
    pieces = list(rt.stream(prompt(44), max_tokens=12, **sampling))
    assert [token for piece in pieces for token in piece.tokens] == alone.tokens


def test_a_windowed_model_crosses_too(tmp_path, seen):
    keys = {"phimoe.attention.sliding_window": 20}
    path = edited(MODELS / f"{CASE}.gguf", tmp_path / "x.gguf", keys)
    moesaic.partition(path, tmp_path / "plan", context=256)
    tokens = prompt(46)
    with moesaic.Runtime(tmp_path / "plan", batch=5) as rt:
        reply = rt.generate(tokens, max_tokens=12, **GREEDY)
        assert_as_fresh(rt, tokens, reply.tokens, seen[tuple(tokens)])


def test_stopping_at_the_length_computes_nothing_anew(rt):
    tokens = prompt(45)
    whole = rt.generate(tokens, max_tokens=8, **GREEDY)
    for count in range(1, 8):
        assert rt.generate(tokens, max_tokens=count, **GREEDY).tokens == whole.tokens[:count]


@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_a_request_may_be_cancelled_while_it_is_computed_anew(plan_of, rounds):
    with moesaic.Runtime(plan_of(CASE), sequences=2, batch=5) as rt:
        expected = rt.generate([prompt(12), prompt(40)], max_tokens=30, **GREEDY)
        crossing = rt.stream(prompt(40), max_tokens=30, **GREEDY)
        other = rt.stream(prompt(12), max_tokens=30, **GREEDY)
        output = [token for _ in range(9) for token in next(crossing).tokens]
        assert len(output) == ORIGINAL - 40 + 1  # the last is beyond, and not run yet
        found = [token for _ in range(rounds) for token in next(other).tokens]
        crossing.close()
        found += [token for piece in other for token in piece.tokens]
        assert found == expected[0].tokens
        assert output == expected[1].tokens[:9]
        again = rt.generate([prompt(40), prompt(12)], max_tokens=30, **GREEDY)  # both places free
        assert [reply.tokens for reply in again] == [reply.tokens for reply in expected[::-1]]


def test_a_context_within_the_original_never_changes_tables(tmp_path):
    moesaic.partition(MODELS / f"{CASE}.gguf", tmp_path / "plan", context=ORIGINAL)
    with moesaic.Runtime(tmp_path / "plan") as rt:
        reply = rt.generate(prompt(40), max_tokens=100, **GREEDY)
        with pytest.raises(RequestError, match="context"):
            rt.logits(prompt(49))
    assert len(reply.tokens) == ORIGINAL - 40


class Sequences:
    """Native sequences of the model."""

    def __init__(self, plan):
        loaded = load_plan(plan)
        self.executor = _native.Executor(loaded.program, str(loaded.weights))

    def feed(self, sequence, tokens):
        """Runs tokens; the logits after the last."""
        ids = np.array(tokens, np.int32)
        rows = np.array([len(ids) - 1], np.int32)
        return self.executor.step(ids, np.full(len(ids), sequence, np.int32), rows)[0]


def test_forks_and_trimmed_sequences_go_on_with_their_table(plan_of, rt):
    native = Sequences(plan_of(CASE))
    tokens = prompt(70)
    a = native.executor.create_sequence(extended=True)
    native.feed(a, tokens[:60])
    b = native.executor.fork_sequence(a)
    expected = rt.logits(tokens)[-1]
    np.testing.assert_array_equal(native.feed(b, tokens[60:]), expected)
    native.executor.trim_sequence(a, 30)  # a prefix for another long prompt
    np.testing.assert_array_equal(native.feed(a, tokens[30:]), expected)
    native.executor.free_sequence(b)
    c = native.executor.create_sequence()
    np.testing.assert_array_equal(native.feed(c, tokens[:40]), rt.logits(tokens[:40])[-1])
    with pytest.raises(RequestError, match="at most 48"):
        native.feed(c, tokens[40:])
    np.testing.assert_array_equal(native.feed(c, tokens[40:48]), rt.logits(tokens[:48])[-1])
    native.executor.extend_sequence(c)
    np.testing.assert_array_equal(native.feed(c, tokens), expected)


def test_sequences_of_both_kinds_share_a_step(plan_of, rt):
    native = Sequences(plan_of(CASE))
    long, short = prompt(70), prompt(41)[::-1]
    a, b = native.executor.create_sequence(extended=True), native.executor.create_sequence()
    ids = np.array(long + short, np.int32)
    sequences = np.repeat(np.array([a, b], np.int32), [len(long), len(short)])
    rows = np.array([len(long) - 1, len(ids) - 1], np.int32)
    logits = native.executor.step(ids, sequences, rows)
    np.testing.assert_array_equal(logits[0], rt.logits(long)[-1])
    np.testing.assert_array_equal(logits[1], rt.logits(short)[-1])


@pytest.mark.parametrize("case", ["phimoe-long-f32", "phimoe-long-q4_0", "phimoe-grin-f32"])
def test_decoding_gives_the_logits_of_prefill(case, plan_of, seen):
    tokens = np.load(MODELS / f"{case}.npz")["tokens"].tolist()
    with moesaic.Runtime(plan_of(case)) as rt:
        for length in (20, len(tokens)):
            reply = rt.generate(tokens[:length], max_tokens=15, **GREEDY)
            assert_as_fresh(rt, tokens[:length], reply.tokens, seen[tuple(tokens[:length])])
