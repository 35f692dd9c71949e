"""One generation in progress: its tokens so far, its sampler, its text."""

import secrets
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from moesaic.runtime import _native
from moesaic.runtime.prefix import Prefix
from moesaic.runtime.results import Completion, Piece, Timings, TokenLogprob, Usage
from moesaic.runtime.sampling import SamplingParams
from moesaic.runtime.stopping import StopMatcher
from moesaic.runtime.tokenizer import Tokenizer

__all__ = ["Request"]


class Request:
    """A prompt on its way to a completion. The scheduler drives it, one caller reads its pieces.

    Args:
        prompt: Token ids, fewer than ``context``.
        params: How to sample and when to stop.
        tokenizer: The model's tokenizer.
        context: Tokens that a sequence may have.
        banned: Token ids never to sample.
        reply: Whether the output is a text of its own and does not continue the prompt's.
        prefix: What the cache keeps of an earlier request, and shall of this one.
    """

    def __init__(
        self,
        prompt: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer,
        context: int,
        *,
        banned: list[int],
        reply: bool,
        prefix: Prefix | None = None,
    ) -> None:
        self.sequence = -1
        self.finished = False
        self.prefix = prefix
        self._reused = 0  # tokens that the cache held before
        self._prompt = prompt
        self._params = params
        self._stop_ids = frozenset() if params.ignore_eos else tokenizer.eos_ids
        self._limit = min(params.max_tokens, context - len(prompt))
        self._history = np.empty(len(prompt) + self._limit, np.int32)  # prompt and output
        self._history[: len(prompt)] = prompt
        self._sampler = _native.Sampler(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            presence_penalty=params.presence_penalty,
            frequency_penalty=params.frequency_penalty,
            logit_bias=dict(params.logit_bias),
            banned=banned,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
        )
        self._decoder = tokenizer.stream(continues=not reply)
        self._matcher = StopMatcher(params.stop)
        self._done = 0  # tokens the cache holds
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._pieces: deque[Piece] = deque()
        self._error: BaseException | None = None
        self._stop_token: int | None = None
        self._submitted = time.perf_counter()
        self._started = self._first = self._last = 0.0

    @property
    def length(self) -> int:
        """Tokens of prompt and output so far, all of which the next logits depend on."""
        return len(self._prompt) + len(self._tokens)

    @property
    def in_prefill(self) -> bool:
        """Whether more than one token is still to be run."""
        return self.length - self._done > 1

    @property
    def has_news(self) -> bool:
        """Whether ``pop`` has something to give."""
        return bool(self._pieces) or self._error is not None

    @property
    def prompt(self) -> list[int]:
        """The prompt's token ids."""
        return self._prompt

    @property
    def cached(self) -> list[int]:
        """The tokens that the cache holds."""
        tokens: list[int] = self._history[: self._done].tolist()
        return tokens

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, so that what the cache holds is not known."""
        return self._error is not None

    @property
    def is_at_prompt_end(self) -> bool:
        """Whether the cache holds the prompt and nothing else."""
        return self._done == len(self._prompt) == self.length

    def start(self, sequence: int, now: float, done: int = 0) -> None:
        """Take a sequence of the executor, which holds `done` tokens, at time ``now``."""
        self.sequence = sequence
        self._done = self._reused = done
        self._started = now

    def rewind(self) -> None:
        """Have all tokens so far run again."""
        self._done = 0

    def next_tokens(self, room: int) -> list[int]:
        """Tokens to run next, at most ``room``."""
        tokens: list[int] = self._history[self._done : min(self._done + room, self.length)].tolist()
        return tokens

    def is_ready_after(self, count: int) -> bool:
        """Whether after ``count`` more tokens the next one can be sampled."""
        return self._done + count >= self.length

    def advance(self, count: int) -> None:
        """Count tokens that a step has run."""
        self._done += count

    def accept(self, logits: npt.NDArray[np.float32]) -> None:
        """Sample the next token from ``logits`` float32 [vocab] and publish what it adds."""
        count = self.length
        token, logprob = self._sampler.sample(logits, self._history[:count], len(self._prompt))
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if token in self._stop_ids:
            self._stop_token = token
            self._finish("stop", self._matcher.push(self._decoder.flush()) + self._matcher.flush())
            return
        self._history[count] = token
        self._tokens.append(token)
        entries = None
        if self._params.logprobs is not None:
            top = tuple(self._sampler.top_logprobs(self._params.logprobs))
            entries = [TokenLogprob(token, logprob, top)]
            self._logprobs += entries
        text = self._matcher.push(self._decoder.push(token))
        if self._matcher.stopped:
            self._finish("stop", text, [token], entries)
        elif len(self._tokens) >= self._limit:
            tail = self._matcher.push(self._decoder.flush()) + self._matcher.flush()
            self._finish(
                "stop" if self._matcher.stopped else "length", text + tail, [token], entries
            )
        else:
            self._publish(Piece(text, [token], entries))

    def fail(self, error: BaseException) -> None:
        """End with an error, which ``pop`` raises."""
        self._error = error
        self.finished = True

    def pop(self) -> Piece:
        """The oldest piece not yet read; only when ``has_news``."""
        if self._pieces:
            return self._pieces.popleft()
        assert self._error is not None
        raise self._error

    def _finish(
        self,
        reason: str,
        text: str,
        tokens: list[int] | None = None,
        logprobs: list[TokenLogprob] | None = None,
    ) -> None:
        self.finished = True
        completion = Completion(
            text="".join([*self._text, text]),
            tokens=self._tokens,
            finish_reason=reason,
            usage=Usage(len(self._prompt), len(self._tokens), self._reused),
            timings=Timings(
                queued=self._started - self._submitted,
                prefill=self._first - self._started,
                decode=self._last - self._first,
            ),
            logprobs=self._logprobs if self._params.logprobs is not None else None,
            stop_token=self._stop_token,
        )
        self._publish(Piece(text, tokens or [], logprobs, completion))

    def _publish(self, piece: Piece) -> None:
        self._text.append(piece.text)
        self._pieces.append(piece)
