import math

import numpy as np
import pytest

from moesaic.errors import RequestError
from moesaic.runtime._native import Sampler

EMPTY = np.zeros(0, np.int32)


def random_logits(vocab, seed=0, spread=3.0):
    return np.random.default_rng(seed).normal(0, spread, vocab).astype(np.float32)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


def likeliest_first(logits):
    return np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))


def expected_probabilities(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The filters in float64, one after the other over what the one before kept."""
    p = np.exp(log_softmax(logits / temperature))
    order = likeliest_first(logits)
    kept = order[:top_k] if top_k else order
    mass = np.cumsum(p[kept]) / p[kept].sum()
    kept = kept[: int(np.searchsorted(mass, top_p - 1e-12)) + 1]
    kept = kept[p[kept] >= min_p * p[kept].max()]
    result = np.zeros(len(p))
    result[kept] = p[kept] / p[kept].sum()
    return result


def draws(logits, count, **params):
    sampler = Sampler(**params)
    return np.array([sampler.sample(logits, EMPTY)[0] for _ in range(count)])


@pytest.mark.parametrize("vocab", [1, 5, 16, 17, 1000, 200_003])
def test_greedy_is_the_largest_logit_with_its_logprob(vocab):
    logits = random_logits(vocab, vocab)
    sampler = Sampler(temperature=0.0)
    token, logprob = sampler.sample(logits, EMPTY)
    assert token == logits.argmax()
    assert logprob == pytest.approx(log_softmax(logits)[token], abs=1e-5)


@pytest.mark.parametrize("at", [[3, 700, 901], [15, 16], [0, 999], [998, 999]])
def test_greedy_takes_the_lowest_of_equals(at):
    logits = random_logits(1000)
    logits[at] = 50.0
    assert Sampler(temperature=0.0).sample(logits, EMPTY)[0] == at[0]
    assert Sampler(top_k=1).sample(logits, EMPTY)[0] == at[0]
    assert Sampler(top_p=1e-9).sample(logits, EMPTY)[0] == at[0]


@pytest.mark.parametrize("n", [0, 1, 20, 1003, 5000])
def test_top_logprobs_are_of_the_unmodified_distribution(n):
    logits = random_logits(1003)
    logits[[4, 9]] = 11.0
    sampler = Sampler(temperature=0.0, logit_bias={4: -100.0}, banned=[9], repetition_penalty=2.0)
    sampler.sample(logits, np.arange(1003, dtype=np.int32))
    top = sampler.top_logprobs(n)
    order = likeliest_first(logits)[:n]
    assert [token for token, _ in top] == order.tolist()
    np.testing.assert_allclose([p for _, p in top], log_softmax(logits)[order], atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_draws_follow_the_filtered_distribution(seed):
    rng = np.random.default_rng(seed)
    params = {
        "temperature": float(rng.choice([0.5, 1.0, 1.7])),
        "top_k": int(rng.choice([0, 1, 7, 30, 100])),
        "top_p": float(rng.choice([1.0, 0.95, 0.6])),
        "min_p": float(rng.choice([0.0, 0.05, 0.3])),
    }
    logits = random_logits(40, seed, spread=1.5)
    logits[5] = logits[11]  # equals, one of which a filter may cut
    expected = expected_probabilities(logits, **params)
    count = 6000
    observed = np.bincount(draws(logits, count, seed=seed, **params), minlength=40)
    assert not observed[expected == 0].any()
    error = np.abs(observed - count * expected)
    assert (error <= 5 * np.sqrt(count * expected * (1 - expected)) + 1e-9).all()


@pytest.mark.parametrize("params", [{"top_k": 50}, {"top_p": 0.3}, {"min_p": 0.2}])
def test_filters_keep_exactly_the_right_tokens_of_a_large_vocabulary(params):
    logits = random_logits(20_000, spread=1.0)
    logits[logits.argsort()[-50:]] += 2.0
    params["temperature"] = 1.0
    expected = np.flatnonzero(expected_probabilities(logits, **params))
    drawn = set(draws(logits, 1500, **params).tolist())
    assert drawn <= set(expected.tolist())
    if len(expected) <= 60:
        assert drawn == set(expected.tolist())


def test_choices_are_fixed_by_the_seed_and_by_nothing_else():
    logits = [random_logits(300, i) for i in range(20)]
    alone = Sampler(seed=7, top_p=0.9)
    tokens = [alone.sample(x, EMPTY) for x in logits]
    first, other = Sampler(seed=7, top_p=0.9), Sampler(seed=8)
    mixed = []
    for x in logits:
        other.sample(x, EMPTY)
        mixed.append(first.sample(x, EMPTY))
    assert mixed == tokens
    assert [Sampler(seed=8, top_p=0.9).sample(x, EMPTY) for x in logits] != tokens


def test_choices_are_the_same_on_every_machine():
    flat = np.zeros(1000, np.float32)
    assert draws(flat, 6, seed=0).tolist() == [883, 431, 26, 970, 106, 327]
    assert draws(flat, 6, seed=2**64 - 1).tolist() == [646, 705, 318, 28, 830, 55]


def test_neighbouring_seeds_are_independent():
    flat = np.zeros(1000, np.float32)
    tokens = np.array([draws(flat, 2, seed=seed) for seed in range(2000)])
    assert np.bincount(tokens[:, 0], minlength=1000).max() < 16
    assert abs(np.corrcoef(tokens[:-1, 0], tokens[1:, 0])[0, 1]) < 0.12
    assert abs(np.corrcoef(tokens[:, 0], tokens[:, 1])[0, 1]) < 0.12


def greedy(logits, history, prompt=0, **params):
    sampler = Sampler(temperature=0.0, **params)
    return sampler.sample(np.array(logits, np.float32), np.array(history, np.int32), prompt)[0]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once():
    assert greedy([4.0, 2.1], [0, 0, 0], repetition_penalty=2.0) == 1
    assert greedy([4.0, 1.9], [0, 0, 0], repetition_penalty=2.0) == 0
    assert greedy([-1.0, -1.9], [0], repetition_penalty=2.0) == 1
    assert greedy([-1.0, -2.1], [0], repetition_penalty=2.0) == 0
    assert greedy([4.0, 2.1], [0], prompt=1, repetition_penalty=2.0) == 1


def test_presence_counts_once_and_frequency_every_time_and_only_what_was_generated():
    assert greedy([4.0, 2.9], [0, 0, 0], presence_penalty=1.2) == 1
    assert greedy([4.0, 2.7], [0, 0, 0], presence_penalty=1.2) == 0
    assert greedy([4.0, 2.7], [0, 0, 0], frequency_penalty=0.45) == 1
    assert greedy([4.0, 2.7], [0, 0, 0], frequency_penalty=0.4) == 0
    assert greedy([4.0, 2.7], [0, 0, 0], prompt=1, frequency_penalty=0.45) == 0
    assert greedy([4.0, 2.9], [0, 0], prompt=2, presence_penalty=5.0) == 0
    assert greedy([4.0, 2.9], [1], presence_penalty=-1.2) == 1


def test_penalties_leave_no_trace_for_the_next_call():
    sampler = Sampler(temperature=0.0, presence_penalty=2.0)
    logits = np.array([4.0, 3.0, 1.0], np.float32)
    assert sampler.sample(logits, np.array([0], np.int32))[0] == 1
    with pytest.raises(RequestError, match="history: token 3"):
        sampler.sample(logits, np.array([0, 3], np.int32))
    assert sampler.sample(logits, EMPTY)[0] == 0


def test_bias_and_bans():
    assert greedy([4.0, 3.0, 1.0], [], logit_bias={2: 3.5}) == 2
    assert greedy([4.0, 3.0, 1.0], [], logit_bias={0: -100}) == 1
    assert greedy([4.0, 3.0, 1.0], [], banned=[0, 1]) == 2
    assert greedy([4.0, 3.0, 1.0], [], banned=[0], logit_bias={0: 100.0}) == 1
    assert 0 not in draws(np.zeros(3, np.float32), 200, banned=[0])


def test_masked_logits_are_never_chosen():
    logits = np.array([-math.inf, 1.0, -math.inf, 0.0], np.float32)
    assert set(draws(logits, 300).tolist()) == {1, 3}
    assert set(draws(logits, 300, temperature=1e30).tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
def test_a_tiny_temperature_is_greedy(temperature):
    logits = random_logits(1000)
    assert set(draws(logits, 50, temperature=temperature).tolist()) == {logits.argmax()}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 7, 99])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_refuses_logits_that_are_no_numbers(bad, at, temperature):
    logits = random_logits(100)
    logits[at] = bad
    with pytest.raises(RequestError, match=f"token {at}"):
        Sampler(temperature=temperature).sample(logits, EMPTY)


def test_refuses_when_nothing_is_left():
    for params in [{"banned": [0, 1]}, {"logit_bias": {0: -math.inf, 1: -math.inf}}]:
        with pytest.raises(RequestError, match="no token is left"):
            Sampler(**params).sample(np.zeros(2, np.float32), EMPTY)
    with pytest.raises(RequestError, match="no token is left"):
        Sampler().sample(np.zeros(0, np.float32), EMPTY)


@pytest.mark.parametrize("params", [{"banned": [2]}, {"banned": [-1]}, {"logit_bias": {2: 1.0}}])
def test_refuses_tokens_outside_the_vocabulary(params):
    with pytest.raises(RequestError, match="not in the vocabulary of 2"):
        Sampler(**params).sample(np.zeros(2, np.float32), EMPTY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("frequency_penalty", math.inf),
        ("logit_bias", {0: math.nan}),
    ],
)
def test_refuses_parameters_out_of_range(name, value):
    with pytest.raises(RequestError, match=name):
        Sampler(**{name: value})
