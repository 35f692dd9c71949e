"""What the runtime returns: completions, the pieces of a stream, the events of a reply."""

from dataclasses import dataclass, field

__all__ = ["Completion", "Piece", "ReplyEvent", "Timings", "TokenLogprob", "Usage"]


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log-probability of a generated token under the model's own distribution.

    Attributes:
        token: The generated token.
        logprob: Its log-probability, before penalties, temperature and truncation.
        top: The most probable tokens at this position with theirs, best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Usage:
    """Token counts of one completion.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated.
        cached_tokens: Tokens of the prompt that the cache still held from an earlier request.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds of one completion.

    Attributes:
        queued: From submission until the first prompt token was in a step.
        prefill: From then until the first token was sampled.
        decode: From then until the last token was sampled.
    """

    queued: float
    prefill: float
    decode: float


@dataclass(frozen=True)
class Completion:
    """One finished generation; ``str()`` of it is the text.

    Attributes:
        text: The generated text, without the prompt and without a matched stop string.
        tokens: The generated token ids, a final stop token not included.
        finish_reason: ``stop`` (the model or a stop string ended it) or ``length``.
        usage: Token counts.
        timings: Seconds spent.
        logprobs: One entry a token when asked for, else None.
        stop_token: The model's own end token if that ended it, else None.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    usage: Usage
    timings: Timings
    logprobs: list[TokenLogprob] | None = None
    stop_token: int | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that had to be run per second of prefill."""
        run = self.usage.prompt_tokens - self.usage.cached_tokens
        return _rate(run, self.timings.prefill)

    @property
    def decode_tokens_per_second(self) -> float:
        """Generated tokens per second after the first one; 0 if there was only one."""
        return _rate(self.usage.completion_tokens - 1, self.timings.decode)


@dataclass(frozen=True)
class Piece:
    """What one step added to a stream.

    Attributes:
        text: New text; may be empty, since characters and stop strings are never split.
        tokens: New token ids; empty only in a final piece that releases held text.
        logprobs: One entry a new token when asked for.
        completion: The whole result, in the last piece only.
    """

    text: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    completion: Completion | None = None

    @property
    def finish_reason(self) -> str | None:
        """``stop`` or ``length`` in the last piece, else None."""
        return self.completion.finish_reason if self.completion else None


@dataclass(frozen=True)
class ReplyEvent:
    """A piece of one message of a reply.

    Attributes:
        message: Number of the message in the reply, from 0.
        role: Who says it, as a rule ``assistant``.
        channel: ``analysis`` (thoughts), ``commentary`` (calls of tools, and what is said between
            them), ``final`` (the answer); None where the model names none.
        recipient: To whom it is said, such as ``functions.get_weather``; None for the user.
        content_type: Format of the content, such as ``json``, if the model names one.
        text: What this event adds to the content; never a part of a character.
        end: None while the message goes on; then how it ended: ``end``, ``return`` (so did the
            reply), ``call`` (a tool is to answer), ``malformed`` (another message began in it) or
            ``cut`` (the reply ended in it).
    """

    message: int
    role: str
    channel: str | None
    recipient: str | None
    content_type: str | None
    text: str
    end: str | None = None


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
