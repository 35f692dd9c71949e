"""What `record_usage` counts: exactly the experts that the router chose, whoever asked."""

import threading

import numpy as np
import pytest
from conftest import MODELS
from kit.tiny_plan import EXPERTS, USED, tiny_plan
from reference import forward

import moesaic
from moesaic.errors import RequestError
from moesaic.runtime import _native

CASE = "mixtral-f32"
GREEDY = {"temperature": 0, "ignore_eos": True}


def tokens_of(case):
    return np.load(MODELS / f"{case}.npz")["tokens"].tolist()


def open_recording(plan, **options):
    return moesaic.Runtime(plan, record_usage=True, **options)


def counts_of_logits(plan, tokens):
    """Counts of one sequence in a runtime of its own."""
    with open_recording(plan) as rt:
        rt.logits(tokens)
        return rt.usage().experts


def added(*profiles):
    return {
        node: np.sum([profile[node] for profile in profiles], axis=0).tolist()
        for node in profiles[0]
    }


@pytest.mark.parametrize("case", ["mixtral-f32", "mixtral-split-f16", "gpt-oss-f32"])
def test_counts_are_those_of_router_logits(case, plan_of, monkeypatch):
    tokens, expected = tokens_of(case), {}

    def experts(m, prefix, x, act):
        scores = m.linear(f"{prefix}.ffn_gate_inp", x)
        chosen = np.argsort(-scores, axis=1)[:, : int(m.hp("expert_used_count"))]
        node = f"/layers.{prefix.removeprefix('blk.')}/moe/experts"
        expected[node] = np.bincount(chosen.ravel(), minlength=scores.shape[1]).tolist()
        return original(m, prefix, x, act)

    original = forward.experts
    monkeypatch.setattr(forward, "experts", experts)
    forward.logits(MODELS / f"{case}.gguf", tokens)
    with open_recording(plan_of(case, kv_type="f32"), batch=13, threads=2) as rt:
        rt.logits(tokens)
        usage = rt.usage()
    assert usage.experts == expected
    assert usage.tokens == len(tokens)
    assert (usage.architecture, usage.uuid) == (rt.plan.model.architecture, rt.plan.uuid)


def test_prompts_and_replies_count(plan_of):
    plan, tokens = plan_of(CASE), tokens_of(CASE)
    with open_recording(plan) as rt:
        reply = rt.generate(tokens, max_tokens=7, **GREEDY)
        usage = rt.usage()
    run = tokens + reply.tokens[:-1]  # the last token is not run
    assert usage.tokens == len(run)
    assert usage.experts == counts_of_logits(plan, run)


def test_a_batch_counts_what_its_requests_count_alone(plan_of):
    plan, tokens = plan_of(CASE), tokens_of(CASE)
    prompts = [tokens, tokens[:1], tokens[5:40], tokens[:-3]]
    alone = []
    for prompt in prompts:
        with open_recording(plan) as rt:
            rt.generate(prompt, max_tokens=5, **GREEDY)
            alone.append(rt.usage().experts)
    with open_recording(plan, sequences=2, batch=9) as rt:
        rt.generate(prompts, max_tokens=5, **GREEDY)
        assert rt.usage().experts == added(*alone)
        assert rt.usage().tokens == sum(len(prompt) + 4 for prompt in prompts)


def test_requests_of_several_threads_all_count(plan_of):
    plan, tokens = plan_of(CASE), tokens_of(CASE)
    prompts = [tokens[i : i + 20] for i in range(6)]
    alone = [counts_of_logits(plan, prompt) for prompt in prompts]
    with open_recording(plan) as rt:
        workers = [threading.Thread(target=rt.logits, args=(prompt,)) for prompt in prompts * 2]
        for worker in workers:
            worker.start()
        seen = [rt.usage().tokens for _ in range(20)]  # reading meanwhile disturbs nothing
        for worker in workers:
            worker.join()
        assert seen == sorted(seen)
        assert rt.usage().tokens == 20 * len(workers)
        assert rt.usage().experts == added(*alone, *alone)


def test_a_cancelled_request_counts_as_far_as_it_ran(plan_of):
    plan, tokens = plan_of(CASE), tokens_of(CASE)[:20]
    with open_recording(plan) as rt:
        stream = rt.stream(tokens, max_tokens=50, **GREEDY)
        made = [token for _ in range(4) for token in next(stream).tokens]
        stream.close()
        first = counts_of_logits(plan, tokens + made[:-1])
        assert rt.usage().experts == first
        rt.logits(tokens)
        assert rt.usage().experts == added(first, counts_of_logits(plan, tokens))


def test_a_request_that_fails_counts_as_far_as_it_ran(plan_of):
    plan, tokens = plan_of(CASE), tokens_of(CASE)[:20]
    with open_recording(plan) as rt:
        nothing_left = dict.fromkeys(range(rt.plan.model.vocab_size), -1e40)
        with pytest.raises(RequestError):
            rt.generate(tokens, temperature=1, logit_bias=nothing_left)
        assert rt.usage().experts == counts_of_logits(plan, tokens)
        with pytest.raises(RequestError):
            rt.generate(tokens, temperature=-1)  # refused before it ran
        assert rt.usage().tokens == len(tokens)


def test_it_is_off_unless_asked_for(plan_of):
    with moesaic.Runtime(plan_of(CASE)) as rt:
        rt.logits([1, 2])
        with pytest.raises(RequestError, match="not recorded") as caught:
            rt.usage()
        assert "record_usage=True" in caught.value.hint
    rt = open_recording(plan_of(CASE))
    assert rt.usage().tokens == 0
    rt.close()
    with pytest.raises(RequestError, match="closed"):
        rt.usage()


def test_recording_changes_no_result(plan_of):
    tokens = tokens_of(CASE)
    with moesaic.Runtime(plan_of(CASE)) as rt, open_recording(plan_of(CASE)) as recording:
        np.testing.assert_array_equal(rt.logits(tokens), recording.logits(tokens))


def test_a_model_without_experts_has_none(plan_of):
    with open_recording(plan_of("llama-f32")) as rt:
        rt.logits([1, 2, 3])
        assert rt.usage().experts == {}
        assert rt.usage().tokens == 3


@pytest.mark.parametrize("split", [False, True])
def test_a_node_that_devices_share_counts_once(split, tmp_path):
    plan = tiny_plan(split=split)
    plan.write(tmp_path)
    program = _native.Program(plan.spec(), len(plan.weights))
    weights = str(tmp_path / "weights.bin")
    executor = _native.Executor(program, weights, null_provider=True, record_usage=True)
    sequence = executor.create_sequence()
    for rows in (1, 5):  # without kernels every id is 0
        rows_of = np.full(rows, sequence, np.int32)
        executor.step(np.zeros(rows, np.int32), rows_of, np.zeros(0, np.int32))
    tokens, experts = executor.usage()
    assert tokens == 6
    assert experts == {"/layers.1/moe/experts": [6 * USED] + [0] * (EXPERTS - 1)}
