"""Sampling parameters: their defaults, limits and checks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from moesaic.errors import PlanError, RequestError

__all__ = ["SamplingParams"]

MAX_LOGPROBS = 20


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
        _number("presence_penalty", self.presence_penalty)
        _number("frequency_penalty", self.frequency_penalty)
        _number("repetition_penalty", self.repetition_penalty, 0.0)
        if self.repetition_penalty == 0 or self.top_p == 0:
            name = "top_p" if self.top_p == 0 else "repetition_penalty"
            raise RequestError(f"{name} must be above 0")
        if self.seed is not None:
            _integer("seed", self.seed, 0, 2**64 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos must be true or false, not {self.ignore_eos!r}")
        if not isinstance(self.logit_bias, Mapping):
            raise RequestError("logit_bias must be a mapping of token ids to numbers")
        for token, bias in self.logit_bias.items():
            _integer("logit_bias token", token, 0)
            _number(f"logit_bias[{token}]", bias)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, Sequence) or not all(isinstance(s, str) and s for s in strings):
        raise RequestError(f"{name} must be a non-empty string or a list of them")
    return tuple(strings)


def _integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RequestError(f"{name} must be {bounds}, not {value}")


def _number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, not {value!r}")
    if not low <= value <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise RequestError(f"{name} must be {bounds}, not {value:g}")
