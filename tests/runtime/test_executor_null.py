"""The executor over the null provider: every rule of steps and sequences, without kernels."""

import threading

import numpy as np
import pytest
from kit.tiny_plan import VOCAB, tiny_plan

from moesaic.errors import DeviceError, PlanError, RequestError
from moesaic.runtime import _native


def i32(*values):
    return np.array(values, np.int32)


@pytest.fixture(params=[False, True], ids=["cpu", "split"])
def plan(request, tmp_path):
    plan = tiny_plan(split=request.param)
    plan.write(tmp_path)
    return plan


@pytest.fixture
def make(plan, tmp_path):
    def make(**options):
        options = {"threads": 1, "null_provider": True} | options
        program = _native.Program(plan.spec(), len(plan.weights))
        return _native.Executor(program, str(tmp_path / "weights.bin"), **options)

    return make


@pytest.fixture
def executor(make):
    return make()


def feed(executor, sequence, count):
    """Appends tokens in steps as large as allowed."""
    while count:
        now = min(count, executor.limits["batch"])
        executor.step(np.zeros(now, np.int32), np.full(now, sequence, np.int32), i32())
        count -= now


def test_a_step_returns_logits_of_the_wanted_rows(executor):
    a, b = executor.create_sequence(), executor.create_sequence()
    logits = executor.step(i32(1, 2, 3, 47), i32(b, b, b, a), i32(2, 3))
    assert logits.shape == (2, VOCAB)
    assert logits.dtype == np.float32
    assert not logits.any()
    assert executor.sequence_length(a) == 1
    assert executor.sequence_length(b) == 3


def test_no_logits_may_be_wanted(executor):
    a = executor.create_sequence()
    assert executor.step(i32(1), i32(a), i32()).shape == (0, VOCAB)
    by_node = {row["node"]: row["calls"] for row in executor.step_seconds()}
    assert by_node["/embed"] == 1
    assert by_node["/lm_head"] == 0


def test_steps_are_timed_in_program_order(executor, plan):
    a = executor.create_sequence()
    for _ in range(3):
        executor.step(i32(1), i32(a), i32(0))
    rows = executor.step_seconds()
    assert [row["op"] for row in rows] == [step.op for step in plan.file.program]
    assert [row["device"] for row in rows] == [step.device for step in plan.file.program]
    assert all(row["calls"] == 3 and row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("tokens", "sequences", "wanted", "message"),
    [
        ([], [], [], "at least one token"),
        ([1, 2], [0], [], "2 tokens and 1 sequences"),
        ([48], [0], [], "token 0 is 48, the vocabulary has 48"),
        ([1, -1], [0, 0], [], "token 1 is -1"),
        ([1], [1], [], "sequence 1 does not exist"),
        ([1], [-1], [], "sequence -1 does not exist"),
        ([1], [99], [], "sequence 99 does not exist"),
        ([1, 2, 3], [0, 2, 0], [], "tokens of sequence 0 are not contiguous"),
        ([1] * 17, [0] * 17, [], "a step of 17 tokens, the limit is 16"),
        ([1], [0], [1], "ascending indices"),
        ([1], [0], [-1], "ascending indices"),
        ([1, 2], [0, 0], [0, 0], "ascending indices"),
        ([1, 2], [0, 0], [1, 0], "ascending indices"),
        ([1], [0], [0, 0], "more logits are wanted"),
        ([1] * 16, [0] * 16, list(range(9)), "at most 8"),
    ],
)
def test_wrong_arguments_change_nothing(executor, tokens, sequences, wanted, message):
    numbers = [executor.create_sequence() for _ in range(3)]
    executor.free_sequence(numbers[1])
    feed(executor, 0, 5)
    with pytest.raises(RequestError, match=message):
        executor.step(i32(*tokens), i32(*sequences), i32(*wanted))
    assert executor.sequence_length(0) == 5
    assert executor.sequence_length(2) == 0


@pytest.mark.parametrize(
    "bad", [np.array([1]), np.array([[1]], np.int32), np.zeros(4, np.int32)[::2]]
)
def test_arrays_are_contiguous_int32_vectors(executor, bad):
    a = executor.create_sequence()
    with pytest.raises(TypeError):
        executor.step(bad, i32(a), i32())


def test_the_context_is_a_limit(executor):
    a = executor.create_sequence()
    feed(executor, a, 199)
    with pytest.raises(RequestError, match="would have 201 tokens, the context is 200") as info:
        executor.step(i32(1, 2), i32(a, a), i32())
    assert "--context" in info.value.hint
    executor.step(i32(1), i32(a), i32(0))
    assert executor.sequence_length(a) == 200


def test_sequences_are_limited_and_reused(executor):
    numbers = [executor.create_sequence() for _ in range(3)]
    assert sorted(numbers) == [0, 1, 2]
    with pytest.raises(RequestError, match="all 3 sequences are in use") as info:
        executor.create_sequence()
    assert "--sequences" in info.value.hint
    executor.free_sequence(1)
    with pytest.raises(RequestError, match="sequence 1 does not exist"):
        executor.sequence_length(1)
    assert executor.create_sequence() == 1


def test_request_errors_are_value_errors(executor):
    with pytest.raises(ValueError, match="does not exist"):
        executor.free_sequence(0)


def test_a_fork_continues_on_its_own(executor):
    a = executor.create_sequence()
    feed(executor, a, 45)
    b = executor.fork_sequence(a)
    assert executor.sequence_length(b) == 45
    feed(executor, b, 50)
    executor.step(i32(1, 2, 3), i32(a, a, b), i32(0, 1, 2))
    assert executor.sequence_length(a) == 47
    assert executor.sequence_length(b) == 96


def test_trim_stops_where_the_window_has_moved_on(executor):
    a = executor.create_sequence()
    feed(executor, a, 100)
    executor.trim_sequence(a, 90)
    assert executor.sequence_length(a) == 90
    with pytest.raises(RequestError, match="its sliding window has moved on"):
        executor.trim_sequence(a, 40)
    with pytest.raises(RequestError, match="cannot trim sequence 0 of 90 tokens to 91"):
        executor.trim_sequence(a, 91)
    executor.trim_sequence(a, 0)
    feed(executor, a, 200)


def test_random_use_never_misses_a_page(executor):
    """The null provider checks every page that a token sees, in both kinds of cache."""
    rng = np.random.default_rng(7)
    alive = {}
    for _ in range(3000):
        choice = rng.integers(10)
        if choice == 0 and len(alive) < 3:
            alive[executor.create_sequence()] = 0
        elif choice == 1 and 0 < len(alive) < 3:
            source = int(rng.choice(list(alive)))
            alive[executor.fork_sequence(source)] = alive[source]
        elif choice == 2 and alive:
            gone = int(rng.choice(list(alive)))
            executor.free_sequence(gone)
            del alive[gone]
        elif choice == 3 and alive:
            trimmed = int(rng.choice(list(alive)))
            length = int(rng.integers(alive[trimmed] + 1))
            try:
                executor.trim_sequence(trimmed, length)
                alive[trimmed] = length
            except RequestError:
                assert alive[trimmed] > 40
        elif alive:
            runs, room = [], 16
            for sequence in rng.permutation(list(alive)):
                count = min(room, 200 - alive[int(sequence)], int(rng.integers(12)))
                runs += [int(sequence)] * count
                room -= count
                alive[int(sequence)] += count
            if runs:
                executor.step(np.ones(len(runs), np.int32), i32(*runs), i32(len(runs) - 1))
        assert {s: executor.sequence_length(s) for s in alive} == alive


def test_limits_may_be_lowered(make):
    executor = make(context=64, sequences=2, batch=4)
    assert executor.limits == {"context": 64, "sequences": 2, "batch": 4, "logits_rows": 8}
    a = executor.create_sequence()
    executor.create_sequence()
    with pytest.raises(RequestError, match="all 2 sequences"):
        executor.create_sequence()
    with pytest.raises(RequestError, match="the limit is 4"):
        executor.step(np.zeros(5, np.int32), np.full(5, a, np.int32), i32())
    feed(executor, a, 64)
    with pytest.raises(RequestError, match="the context is 64"):
        executor.step(i32(1), i32(a), i32())


@pytest.mark.parametrize("name", ["context", "sequences", "batch"])
@pytest.mark.parametrize("value", [10_000, -1])
def test_limits_may_not_be_raised(make, name, value):
    with pytest.raises(RequestError, match=name):
        make(**{name: value})


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_threads_are_checked(make, threads):
    with pytest.raises(RequestError, match="threads: expected 0"):
        make(threads=threads)


def test_all_usable_cores_by_default(make):
    assert make(threads=0).threads == _native.usable_cores()
    assert make(threads=2).threads == 2


def test_memory_is_as_planned(executor, plan):
    rows = {row["device"]: row for row in executor.memory()}
    assert list(rows) == [device.name for device in plan.file.devices]
    for planned in plan.file.memory:
        row = rows[planned.device]
        assert row["activations"] == planned.activations
        purposes = ("weights", "kv", "activations", "staging", "reserve")
        assert row["total"] == sum(row[purpose] for purpose in purposes)
        assert row["planned"]["total"] == planned.total
    assert 0 < rows["cpu"]["weights_resident"] <= len(plan.weights)


@pytest.mark.parametrize("change", [-1, 1, -(10**9)])
def test_weights_of_the_wrong_size_are_refused(make, plan, tmp_path, change):
    data = plan.weights[:change] if change == -1 else plan.weights + b"\0" * max(change, 0)
    (tmp_path / "weights.bin").write_bytes(data if change > -(10**9) else b"")
    with pytest.raises(PlanError, match=f"expected {len(plan.weights)} bytes, got") as info:
        make()
    assert info.value.hint


def test_weights_must_be_a_file(make, tmp_path):
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(PlanError, match="cannot be opened"):
        make()
    (tmp_path / "weights.bin").mkdir()
    with pytest.raises(PlanError, match="regular file"):
        make()


def test_a_cuda_plan_needs_cuda(tmp_path):
    plan = tiny_plan(split=True)
    plan.write(tmp_path)
    program = _native.Program(plan.spec(), len(plan.weights))
    with pytest.raises(
        DeviceError, match="no CUDA device: the plan places nodes on cuda:0"
    ) as info:
        _native.Executor(program, str(tmp_path / "weights.bin"))
    assert "partition" in info.value.hint


def test_callers_on_several_threads_are_serialised(executor):
    failures = []

    def use():
        try:
            for _ in range(100):
                sequence = executor.create_sequence()
                feed(executor, sequence, 40)
                assert executor.sequence_length(sequence) == 40
                executor.free_sequence(sequence)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# Sequences beyond the original context


@pytest.fixture(params=[False, True], ids=["cpu", "split"])
def longrope(request, tmp_path):
    plan = tiny_plan(split=request.param, original_context=64)
    plan.write(tmp_path)
    program = _native.Program(plan.spec(), len(plan.weights))
    weights = str(tmp_path / "weights.bin")
    return _native.Executor(program, weights, threads=1, null_provider=True)


def test_only_extended_sequences_grow_beyond_the_original_context(longrope):
    assert longrope.original_context == 64
    a, b = longrope.create_sequence(), longrope.create_sequence(extended=True)
    assert (longrope.sequence_extended(a), longrope.sequence_extended(b)) == (False, True)
    feed(longrope, a, 64)
    feed(longrope, b, 64)
    with pytest.raises(RequestError, match=r"would have 65 tokens.* at most 64") as info:
        longrope.step(i32(1, 2), i32(b, a), i32())
    assert "extend it" in info.value.hint
    assert (longrope.sequence_length(a), longrope.sequence_length(b)) == (64, 64)
    feed(longrope, b, 136)
    assert longrope.sequence_length(b) == 200


def test_a_sequence_of_many_tokens_at_once_may_not_cross(longrope):
    a = longrope.create_sequence()
    feed(longrope, a, 60)
    with pytest.raises(RequestError, match="would have 70 tokens"):
        longrope.step(np.zeros(10, np.int32), np.full(10, a, np.int32), i32())
    longrope.step(np.zeros(4, np.int32), np.full(4, a, np.int32), i32())


def test_extending_a_sequence_empties_it(longrope):
    a = longrope.create_sequence()
    feed(longrope, a, 64)
    longrope.extend_sequence(a)
    assert longrope.sequence_length(a) == 0
    assert longrope.sequence_extended(a)
    feed(longrope, a, 70)


def test_forks_and_trimmed_sequences_keep_their_tables(longrope):
    a, b = longrope.create_sequence(), longrope.create_sequence(extended=True)
    feed(longrope, a, 10)
    feed(longrope, b, 66)
    c = longrope.fork_sequence(b)
    assert longrope.sequence_extended(c)
    longrope.trim_sequence(c, 60)
    assert longrope.sequence_extended(c)
    feed(longrope, c, 10)
    longrope.free_sequence(b)
    d = longrope.fork_sequence(a)
    assert not longrope.sequence_extended(d)
    feed(longrope, d, 54)
    with pytest.raises(RequestError, match="would have 65"):
        longrope.step(i32(1), i32(d), i32())


def test_a_number_that_is_used_again_forgets_what_it_was(longrope):
    a = longrope.create_sequence(extended=True)
    feed(longrope, a, 70)
    longrope.free_sequence(a)
    assert longrope.create_sequence() == a
    assert not longrope.sequence_extended(a)
    with pytest.raises(RequestError, match="does not exist"):
        longrope.sequence_extended(a + 1)


def test_forks_share_pages_until_one_is_extended(longrope):
    """An extended fork gives its shares back, so that all sequences still fit."""
    a = longrope.create_sequence()
    feed(longrope, a, 50)
    b, c = longrope.fork_sequence(a), longrope.fork_sequence(a)
    for sequence in (b, c):
        longrope.extend_sequence(sequence)
        feed(longrope, sequence, 200)
    feed(longrope, a, 14)
    assert longrope.sequence_length(a) == 64


def test_a_model_with_one_table_has_no_extended_sequences(executor):
    assert executor.original_context == 0
    a = executor.create_sequence()
    with pytest.raises(RequestError, match="no second rope tables"):
        executor.create_sequence(extended=True)
    with pytest.raises(RequestError, match="no second rope tables"):
        executor.extend_sequence(a)
    feed(executor, a, 200)
    assert not executor.sequence_extended(a)
