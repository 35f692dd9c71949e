"""Hostile plans: a valid plan with random damage is refused, or is harmless. Never a crash."""

import copy
import random
from collections import Counter

import numpy as np
import pytest
from kit.tiny_plan import tiny_plan

from moesaic.errors import DeviceError, PlanError, RequestError
from moesaic.runtime import _native

NUMBERS = [
    0, 1, -1, 2, 3, 4, 31, 32, 33, 63, 64, 65, 4095, 4096, 4097, 2**16, 2**31 - 1, 2**31, 2**32,
    2**40, 2**62, 2**63 - 1, -(2**31), -(2**63), 2**63, 2**64, 0.0, 0.5, -1.5, 1e300, float("nan"),
    float("inf"), True, None, "", [], {},
]  # fmt: skip


def places(value, found=None, path=()):
    """Every (container, key) of a tree of dicts and lists."""
    found = [] if found is None else found
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in items:
        found.append((value, key))
        places(child, found, (*path, key))
    return found


def mutate(spec, rng):
    container, key = rng.choice(places(spec))
    value = container[key]
    choice = rng.randrange(6)
    if choice == 0:
        del container[key]
    elif choice == 1 and isinstance(container, list):
        container.insert(key, copy.deepcopy(value))
    elif choice == 2:
        container[key] = rng.choice(NUMBERS)
    elif choice == 3 and isinstance(value, int):
        container[key] = value + rng.choice([-64, -1, 1, 64, 4096, value, -value])
    else:  # what is elsewhere in the plan: another name, number, step
        other, other_key = rng.choice(places(spec))
        container[key] = copy.deepcopy(other[other_key])


def use(spec, weights):
    """Returns what became of a plan: ``refused``, or ``idle`` or ``ran`` for one that was not."""
    try:
        program = _native.Program(spec, weights.stat().st_size)
    except PlanError as error:
        assert str(error)
        return "refused"
    try:
        executor = _native.Executor(program, str(weights), threads=1, null_provider=True)
        sequence = executor.create_sequence()
        for count in (1, 3, 60):
            count = min(count, executor.limits["batch"])
            tokens, wanted = np.zeros(count, np.int32), np.zeros(1, np.int32)
            executor.step(tokens, np.full_like(tokens, sequence), wanted)
    except (DeviceError, RequestError):  # more memory than there is, less context than is used here
        return "idle"
    return "ran"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("split", [False, True], ids=["cpu", "split"])
def test_mutated_plans_are_refused_or_harmless(seed, split, tmp_path):
    kv_types = (("f16", "f32"), ("q8_0", "bf16"))[seed % 2]
    plan = tiny_plan(split=split, batch=64, kv_types=kv_types)
    weights = plan.write(tmp_path) / "weights.bin"
    original = plan.spec()
    rng = random.Random(f"{seed} {split}")
    outcomes = Counter()
    for _ in range(400):
        spec = copy.deepcopy(original)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            mutate(spec, rng)
        outcomes[use(spec, weights)] += 1
    # Names and reports may change, and little else; both ways out are taken.
    assert outcomes["ran"] > 10
    assert outcomes["refused"] > 200


def test_a_plan_that_asks_for_more_memory_than_there_is(tmp_path):
    plan = tiny_plan()
    weights = plan.write(tmp_path) / "weights.bin"
    spec = plan.spec()
    spec["devices"][0]["arena_bytes"] = 2**46
    program = _native.Program(spec, len(plan.weights))
    with pytest.raises(DeviceError, match="cannot allocate 70368744177664 bytes"):
        _native.Executor(program, str(weights), null_provider=True)


def test_dicts_that_hold_other_things():
    class Liar(dict):
        def __getitem__(self, key):
            raise AssertionError

    with pytest.raises(PlanError, match="is missing"):
        _native.Program(Liar())
    with pytest.raises(TypeError):
        _native.Program([])


def test_a_million_steps_are_too_many():
    spec = tiny_plan().spec()
    spec["program"] = spec["program"][:1] * 1_000_001
    with pytest.raises(PlanError, match="program: expected at most 1000000 items"):
        _native.Program(spec)


def test_a_step_with_too_many_inputs():
    spec = tiny_plan(split=True).spec()
    step = next(step for step in spec["program"] if step["op"] == "Copy")
    step["inputs"], step["outputs"] = step["inputs"] * 100, step["outputs"] * 100
    with pytest.raises(PlanError, match="too many inputs or outputs"):
        _native.Program(spec)
