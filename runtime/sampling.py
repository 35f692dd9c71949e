"""Sampling parameters: their defaults, limits and checks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from moesaic.errors import PlanError, RequestError

__all__ = ["SamplingParams"]

MAX_LOGPROBS = 20
MOST_PENALTY = 1e6  # so that float32 logits stay finite
MOST_BIAS = 1e30

_HINTS = {
    "max_tokens": "leave it out for the default; the context ends a text anyway",
    "temperature": "0 is greedy, 1 is the model's own distribution",
    "top_k": "0 keeps all tokens",
    "top_p": "1 keeps all tokens",
    "min_p": "0 keeps all tokens",
    "repetition_penalty": "1 is none",
    "presence_penalty": "0 is none",
    "frequency_penalty": "0 is none",
    "seed": "leave it out for another text each time",
    "stop": "give texts of at least one character",
    "ignore_eos": "leave it out, or give True or False",
    "logit_bias": "give numbers by token id, such as {42: -100.0}",
    "logprobs": "leave it out for none",
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    Attributes:
        max_tokens: Tokens to generate at most; the context may end it earlier.
        temperature: Divides the logits; 0 is greedy, and then the filters below do not matter.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the smallest set of most probable tokens with at least this probability.
        min_p: Drop tokens less probable than this fraction of the most probable one.
        repetition_penalty: Divide positive and multiply negative logits of tokens seen in prompt
            or output.
        presence_penalty: Subtracted once from the logits of generated tokens.
        frequency_penalty: Subtracted per occurrence from the logits of generated tokens.
        seed: Fixes the random choices; None draws one.
        stop: Strings that end the text; they are not part of it.
        ignore_eos: Go on past the model's own end tokens (for measurements).
        logit_bias: Added to the logits of these tokens.
        logprobs: Report log-probabilities with this many alternatives; None reports none.
    """

    max_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> "SamplingParams":
        """Defaults of a model: what its ``generation_config.json`` sets, ours for the rest.

        Raises:
            PlanError: A value is of the wrong type or out of range.
        """
        known = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        values = {name: config[name] for name in known if config.get(name) is not None}
        if config.get("do_sample") is False:
            values["temperature"] = 0.0
        try:
            return cls().updated(**values)
        except RequestError as error:
            raise PlanError(
                f"generation_config.json: {error}", hint="correct or remove that value"
            ) from None

    def updated(self, **changes: Any) -> "SamplingParams":
        """A checked copy with ``changes``; ``stop`` may be one string.

        Raises:
            RequestError: An argument is unknown, of the wrong type or out of range.
        """
        names = {f.name for f in fields(self)}
        if unknown := sorted(set(changes) - names):
            raise RequestError(
                f"unknown sampling argument {unknown[0]!r}",
                hint=f"known: {', '.join(sorted(names))}",
            )
        changes = {name: _plain(value) for name, value in changes.items()}
        if "stop" in changes:
            changes["stop"] = _strings("stop", changes["stop"])
        result = replace(self, **changes)
        result._check()
        return result

    def _check(self) -> None:
        _integer("max_tokens", self.max_tokens, 1)
        _integer("top_k", self.top_k, 0, 2**31 - 1)
        _number("temperature", self.temperature, 0.0)
        _number("top_p", self.top_p, 0.0, 1.0)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -MOST_PENALTY, MOST_PENALTY)
        _number("frequency_penalty", self.frequency_penalty, -MOST_PENALTY, MOST_PENALTY)
        _number("repetition_penalty", self.repetition_penalty, 1 / MOST_PENALTY, MOST_PENALTY)
        if self.top_p == 0:
            raise _wrong("top_p", "above 0", self.top_p)
        if self.seed is not None:
            _integer("seed", self.seed, 0, 2**64 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise _wrong("ignore_eos", "true or false", self.ignore_eos)
        if not isinstance(self.logit_bias, Mapping):
            raise _wrong("logit_bias", "a mapping of token ids to numbers", self.logit_bias)
        for token, bias in self.logit_bias.items():
            _integer("logit_bias: a token", token, 0)
            _number(f"logit_bias: that of token {token}", bias, high=MOST_BIAS)

    def check_vocabulary(self, size: int) -> None:
        """Raises a `RequestError` if a token that is named here is not one of `size`."""
        for token in self.logit_bias:
            if token >= size:
                raise RequestError(
                    f"logit_bias: token {token!s:.40} is not in the vocabulary of {size}",
                    hint=f"give ids from 0 to {size - 1}",
                )


def _plain(value: Any) -> Any:
    """A scalar of NumPy as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _wrong(name: str, expected: str, value: Any) -> RequestError:
    return RequestError(
        f"{name} must be {expected}, not {value!r:.60}", hint=_HINTS[name.partition(":")[0]]
    )


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Sequence) or not all(isinstance(s, str) and s for s in strings):
        raise _wrong(name, "a non-empty string or a list of them", value)
    return tuple(strings)


def _integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, "an integer", value)
    if value < low or (high is not None and value > high):
        raise _wrong(
            name, f"at least {low}" if high is None else f"between {low} and {high}", value
        )


def _number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not _finite(value):
        raise _wrong(name, "a finite number", value)
    if low <= value <= high:
        return
    if high == math.inf:
        raise _wrong(name, f"at least {low:g}", value)
    raise _wrong(
        name, f"at most {high:g}" if low == -math.inf else f"between {low:g} and {high:g}", value
    )


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
