"""Runtime through its public interface."""

import shutil
import threading
import warnings

import numpy as np
import pytest
from conftest import MODELS

import moesaic
from moesaic.errors import PlanError, RequestError

CASE = "gpt-oss-mxfp4"
GREEDY = {"temperature": 0, "ignore_eos": True}


@pytest.fixture
def rt(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as runtime:
        yield runtime


def prompt_tokens():
    return np.load(MODELS / f"{CASE}.npz")["tokens"].tolist()


def test_prompts_come_as_text_ids_or_a_list_of_either(rt):
    ids = rt.tokenizer.encode("ab ab")
    one = rt.generate("ab ab", max_tokens=6, **GREEDY)
    assert rt.generate(ids, max_tokens=6, **GREEDY).tokens == one.tokens
    assert rt.generate(np.array(ids), max_tokens=6, **GREEDY).tokens == one.tokens
    many = rt.generate(["ab ab", ids, "zz"], max_tokens=6, **GREEDY)
    assert [reply.tokens for reply in many[:2]] == [one.tokens, one.tokens]
    assert len(many) == 3


def test_a_completion_tells_everything(rt):
    reply = rt.generate("ab ab", max_tokens=6, logprobs=2, **GREEDY)
    assert str(reply) == reply.text == rt.tokenizer.decode(reply.tokens)
    assert reply.finish_reason == "length"
    assert reply.usage.prompt_tokens == len(rt.tokenizer.encode("ab ab"))
    assert reply.usage.completion_tokens == len(reply.tokens) == 6
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 6
    assert reply.timings.prefill > 0 and reply.timings.decode > 0
    assert [entry.token for entry in reply.logprobs] == reply.tokens
    for entry in reply.logprobs:
        assert len(entry.top) == 2 and entry.top[0] == (entry.token, entry.logprob)
        assert entry.logprob <= 0
    assert rt.generate("ab", max_tokens=1, **GREEDY).logprobs is None


def test_a_stream_adds_up_to_the_completion(rt):
    pieces = list(rt.stream("ab ab", max_tokens=9, **GREEDY))
    whole = rt.generate("ab ab", max_tokens=9, **GREEDY)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.tokens] == whole.tokens
    assert pieces[-1].completion.text == whole.text
    assert pieces[-1].finish_reason == "length"
    assert all(piece.completion is None for piece in pieces[:-1])


def test_an_abandoned_stream_frees_its_sequence(plan_of):
    with moesaic.Runtime(plan_of(CASE), sequences=1) as rt:
        stream = rt.stream("ab", max_tokens=50, **GREEDY)
        next(stream)
        stream.close()
        assert len(rt.generate("ab", max_tokens=3, **GREEDY).tokens) == 3


def test_two_streams_at_once_in_one_thread(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as rt:
        alone = [rt.generate(prompt, max_tokens=8, **GREEDY).text for prompt in ("ab", "zz")]
        streams = [rt.stream(prompt, max_tokens=8, **GREEDY) for prompt in ("ab", "zz")]
        texts = ["", ""]
        for pieces in zip(*streams, strict=True):
            texts = [text + piece.text for text, piece in zip(texts, pieces, strict=True)]
        assert texts == alone


def test_threads_share_a_runtime(rt):
    prompts = ["ab", "ba", "abba", "zz", "a b"]
    expected = [rt.generate(prompt, max_tokens=10, **GREEDY).text for prompt in prompts]
    got = {}

    def work(prompt):
        got[prompt] = rt.generate(prompt, max_tokens=10, **GREEDY).text

    workers = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [got[prompt] for prompt in prompts] == expected


@pytest.mark.parametrize("bias", [{10**6: 1.0}, None])
def test_a_request_that_cannot_be_sampled_fails_alone(rt, bias):
    bias = bias or dict.fromkeys(range(rt.plan.model.vocab_size), -1e40)  # nothing is left
    expected = rt.generate("ab", max_tokens=6, **GREEDY).text
    stream = rt.stream("ab", max_tokens=6, **GREEDY)
    texts = [next(stream).text]
    with pytest.raises(RequestError):
        rt.generate("zz", max_tokens=6, temperature=1, logit_bias=bias)
    texts += [piece.text for piece in stream]
    assert "".join(texts) == expected


def test_the_seed_fixes_the_choices(rt):
    def reply(seed):
        return rt.generate("ab", max_tokens=12, temperature=1.5, seed=seed, ignore_eos=True).tokens

    assert reply(1) == reply(1)
    assert len({tuple(reply(seed)) for seed in range(4)}) > 1
    assert len({tuple(reply(None)) for _ in range(4)}) > 1


def test_stop_strings_end_the_text_and_are_not_part_of_it(rt):
    whole = rt.generate("ab ab", max_tokens=20, **GREEDY).text
    stop = whole[5:8]
    cut = rt.generate("ab ab", max_tokens=20, stop=["never", stop], **GREEDY)
    assert cut.finish_reason == "stop"
    assert cut.text == whole[: whole.index(stop)]
    streamed = "".join(p.text for p in rt.stream("ab ab", max_tokens=20, stop=stop, **GREEDY))
    assert streamed == cut.text


def test_an_end_token_ends_the_text(rt):
    eos = min(rt.tokenizer.eos_ids)
    reply = rt.generate("ab", max_tokens=5, temperature=0, logit_bias={eos: 1e9})
    assert reply.finish_reason == "stop"
    assert reply.tokens == [] and reply.text == ""


def test_the_context_ends_the_text(plan_of):
    with moesaic.Runtime(plan_of(CASE), context=16) as rt:
        reply = rt.generate([5] * 10, max_tokens=100, **GREEDY)
        assert reply.finish_reason == "length"
        assert len(reply.tokens) == 6
        assert len(rt.generate([5] * 15, max_tokens=100, **GREEDY).tokens) == 1


def test_logits_of_a_single_token_and_of_the_whole_context(plan_of):
    tokens = prompt_tokens()
    with moesaic.Runtime(plan_of(CASE), context=len(tokens)) as rt:
        whole = rt.logits(tokens)
        np.testing.assert_array_equal(rt.logits(tokens[:1]), whole[:1])
        with pytest.raises(RequestError, match="context"):
            rt.logits([*tokens, 1])


def test_memory_is_what_was_planned(rt):
    (cpu,) = rt.memory()
    assert cpu["device"] == "cpu"
    planned = cpu["planned"]
    assert cpu["total"] <= planned["total"]
    assert cpu["total"] == pytest.approx(planned["total"], rel=0.02)
    assert {key: cpu[key] for key in planned if key != "total"} == {
        key: planned[key] for key in planned if key != "total"
    }


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        ([], "empty"),
        ([[]], "empty"),
        ([1, -1], "token 1 of the prompt is -1"),
        ([10**6], "vocabulary"),
        ([1.5], "integer"),
        ([5] * 5000, "context"),
        (["ab", ""], "empty"),
        ([1, "ab"], "text or token ids, not 1"),
        (None, "text or token ids, not None"),
        (5, "text or token ids, not 5"),
        (b"ab", "text or token ids, not b'ab'"),
    ],
)
def test_bad_prompts(rt, prompt, said):
    with pytest.raises(RequestError, match=said):
        rt.generate(prompt, max_tokens=2)
    assert len(rt.generate("ab", max_tokens=2, **GREEDY).tokens) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"max_tokens": 2.5},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2},
        {"seed": -1},
        {"top_k": 10**30},
        {"stop": ""},
        {"stop": [""]},
        {"stop": 3},
        {"logprobs": 21},
        {"logit_bias": {1: float("inf")}},
        {"logit_bias": [1]},
        {"repetition_penalty": 0},
        {"ignore_eos": "no"},
        {"temprature": 1},
    ],
)
def test_bad_sampling_arguments(rt, wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        rt.generate("ab", **wrong)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_step_ends_every_request_in_it(plan_of, monkeypatch, interrupt):
    with moesaic.Runtime(plan_of(CASE), sequences=2) as rt:
        expected = rt.generate("zz", max_tokens=6, **GREEDY).tokens
        streams = [rt.stream(text, max_tokens=9, **GREEDY) for text in ("ab", "zz")]
        for stream in streams:
            next(stream)

        def interrupted(self, count):
            raise interrupt

        with monkeypatch.context() as patch:  # after the executor has run the step's tokens
            patch.setattr("moesaic.runtime.request.Request.advance", interrupted)
            with pytest.raises(interrupt):
                list(streams[0])
        error = RequestError if interrupt is KeyboardInterrupt else interrupt
        with pytest.raises(error):
            list(streams[1])
        replies = rt.generate(["zz"] * 3, max_tokens=6, **GREEDY)  # both sequences are free again
        assert [reply.tokens for reply in replies] == [expected] * 3


def test_a_closed_runtime_says_so(plan_of):
    rt = moesaic.Runtime(plan_of(CASE))
    stream = rt.stream("ab", max_tokens=20, **GREEDY)
    next(stream)
    rt.close()
    rt.close()
    with pytest.raises(RequestError, match="closed"):
        rt.generate("ab")
    with pytest.raises(RequestError, match="closed"):
        list(stream)


def test_a_wrong_default_of_the_model_is_named(plan_of, tmp_path):
    plan = shutil.copytree(plan_of(CASE), tmp_path / "plan")
    (plan / "generation_config.json").write_text('{"temperature": "hot"}')
    with pytest.raises(PlanError, match=r"generation_config\.json: temperature") as info:
        moesaic.Runtime(plan)
    assert info.value.hint


def test_limits_may_be_lowered_but_not_raised(plan_of):
    with moesaic.Runtime(plan_of(CASE), context=32, sequences=2, batch=4) as rt:
        assert (rt.limits["context"], rt.limits["sequences"], rt.limits["batch"]) == (32, 2, 4)
    with pytest.raises((PlanError, RequestError), match="context"):
        moesaic.Runtime(plan_of(CASE), context=10**6)


def test_what_is_missing_or_changed_in_a_plan_is_named(tmp_path):
    plan = tmp_path / "plan"
    moesaic.partition(MODELS / "llama-f32.gguf", plan)
    for name in ("plan.json", "weights.bin", "tokenizer.json"):
        kept = (plan / name).read_bytes()
        (plan / name).unlink()
        with pytest.raises(PlanError, match=name):
            moesaic.Runtime(plan).generate("ab", max_tokens=1)
        (plan / name).write_bytes(kept[: len(kept) // 2])
        with pytest.raises(PlanError, match=name):
            moesaic.Runtime(plan).generate("ab", max_tokens=1)
        (plan / name).write_bytes(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moesaic.Runtime(plan).close()
    (plan / "model.onnx").write_bytes(b"changed")
    with pytest.warns(UserWarning, match=r"model\.onnx"):
        moesaic.Runtime(plan).close()


def test_chat_follows_the_template_and_keeps_contents_literal(rt):
    messages = [{"role": "user", "content": "ab <|end|> ab"}]
    reply = rt.chat(messages, max_tokens=5, **GREEDY)
    streamed = list(rt.chat(messages, stream=True, max_tokens=5, **GREEDY))
    assert "".join(piece.text for piece in streamed) == reply.text
    plain = rt.chat([{"role": "user", "content": "ab"}], max_tokens=5, **GREEDY)
    assert reply.usage.prompt_tokens > plain.usage.prompt_tokens
