"""Continuous batching: requests of any number of callers share the steps of one executor.

A step takes one token of every sequence that is generating, then fills the batch with prompt
chunks of the others. On the CPU a request's tokens do not depend on what it shares its steps with.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from moesaic.errors import RequestError
from moesaic.runtime import _native
from moesaic.runtime.prefix import Prefix
from moesaic.runtime.request import Request
from moesaic.runtime.results import Completion, Piece

__all__ = ["Scheduler"]

Batch = list[tuple[Request, list[int]]]


class Scheduler:
    """Owns an executor and advances the requests submitted to it.

    Every method may be called from any thread. Nothing runs in the background: whoever wants a
    piece runs the next step, and each step serves all requests.
    """

    def __init__(self, executor: _native.Executor) -> None:
        self._executor: _native.Executor | None = executor
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._kept: list[Prefix] = []  # those that hold sequences, used last at the end

    @property
    def executor(self) -> _native.Executor:
        """The executor.

        Raises:
            RequestError: The runtime was closed.
        """
        if self._executor is None:
            raise RequestError("this runtime is closed", hint="open the plan again")
        return self._executor

    def close(self) -> None:
        """Drop the executor and its memory; later calls raise."""
        with self._lock:
            self._executor = None

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue requests; each starts when a sequence is free, in this order."""
        with self._lock:
            self._waiting.extend(requests)

    def cancel(self, requests: Iterable[Request]) -> None:
        """Forget those requests that are not finished and free their sequences."""
        with self._lock:
            for request in requests:
                if request in self._waiting:
                    self._waiting.remove(request)
                elif request in self._running:
                    self._retire(request)

    def pieces(self, request: Request) -> Iterator[Piece]:
        """The pieces of a submitted request as they are made, the one with the completion last.

        Raises:
            Exception: Whatever the executor raised in a step of this request.
        """
        while True:
            with self._lock:
                if not request.has_news:
                    self._step()
                piece = request.pop() if request.has_news else None
            if piece is not None:
                yield piece
                if piece.completion is not None:
                    return

    def completion(self, request: Request) -> Completion:
        """Advance a submitted request to its end; raises as `pieces` does."""
        for piece in self.pieces(request):
            if piece.completion is not None:
                return piece.completion
        raise AssertionError("the last piece has the completion")

    def logits(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Logits float32 [n, vocab] after each of n tokens of a fresh sequence."""
        with self._lock:
            limits = self.executor.limits
            while len(self._running) >= limits["sequences"]:
                self._step()
            rows = min(limits["logits_rows"], limits["batch"])
            sequence = self._create(len(tokens))
            try:
                chunks = [tokens[start : start + rows] for start in range(0, len(tokens), rows)]
                return np.concatenate([self._forward(chunk, sequence) for chunk in chunks])
            finally:
                self.executor.free_sequence(sequence)

    def _forward(self, tokens: npt.NDArray[np.int32], sequence: int) -> npt.NDArray[np.float32]:
        count = len(tokens)
        sequences = np.full(count, sequence, np.int32)
        return self.executor.step(tokens, sequences, np.arange(count, dtype=np.int32))

    def _step(self) -> None:
        """One step for all requests. If it fails, its requests fail with the same error.

        An interrupt may come after the executor has run tokens and before they are counted, so
        that none of the step's requests could go on.
        """
        self._admit()
        self._extend()
        batch = self._fill_batch()
        try:
            self._run(batch)
        except Exception as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, RequestError("the step was interrupted", hint="send the request again"))
            raise
        finally:
            for request, _ in batch:
                if request.finished:
                    self._retire(request)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.executor.limits["sequences"]:
            request = self._waiting.popleft()
            sequence, done = self._reuse(request) or (self._create(request.length), 0)
            request.start(sequence, time.perf_counter(), done)
            self._running.append(request)

    def _reuse(self, request: Request) -> tuple[int, int] | None:
        """A kept sequence that begins like the prompt, and how many tokens of it."""
        if request.prefix not in self._kept:
            return None
        self._kept.remove(request.prefix)
        extended = self._is_extended(request.length)
        return request.prefix.take(self.executor, request.prompt, extended=extended)

    def _keep(self, prefix: Prefix, sequence: int, tokens: list[int]) -> None:
        prefix.hold(sequence, tokens)
        if prefix not in self._kept:
            self._kept.append(prefix)

    def _keep_prompts(self, batch: Batch) -> None:
        """Keep the end of the prompts that have just been run, for windowed models."""
        for request, _ in batch:
            prefix = request.prefix
            if prefix is None or not prefix.windowed or not request.is_at_prompt_end:
                continue
            if self._alive < self.executor.limits["sequences"]:
                sequence = self.executor.fork_sequence(request.sequence)
                self._keep(prefix, sequence, request.cached)

    @property
    def _alive(self) -> int:
        """Sequences in use or kept."""
        return len(self._running) + sum(map(len, self._kept))

    def _create(self, length: int) -> int:
        """A sequence for `length` tokens; kept ones are given up for it, the oldest first."""
        while self._kept and self._alive >= self.executor.limits["sequences"]:
            self._kept.pop(0).free(self.executor)
        return self.executor.create_sequence(extended=self._is_extended(length))

    def _is_extended(self, length: int) -> bool:
        """Whether a sequence of `length` tokens rotates them with the model's second tables."""
        return 0 < self.executor.original_context < length

    def _extend(self) -> None:
        """Run those requests again from the start whose next token changes the tables."""
        for request in self._running:
            sequence = request.sequence
            if self._is_extended(request.length) and not self.executor.sequence_extended(sequence):
                request.rewind()  # first: an interrupt between the two does no harm
                self.executor.extend_sequence(sequence)

    def _fill_batch(self) -> Batch:
        """Requests of the next step with their tokens: decoding ones first, then older ones."""
        room = self.executor.limits["batch"]
        batch = []
        for request in sorted(self._running, key=lambda r: r.in_prefill):
            tokens = request.next_tokens(room)
            if tokens:
                batch.append((request, tokens))
                room -= len(tokens)
        return batch

    def _run(self, batch: Batch) -> None:
        tokens = np.array([token for _, chunk in batch for token in chunk], np.int32)
        sequences = np.array([r.sequence for r, chunk in batch for _ in chunk], np.int32)
        ends = np.cumsum([len(chunk) for _, chunk in batch], dtype=np.int32) - 1
        ready = [
            i for i, (request, chunk) in enumerate(batch) if request.is_ready_after(len(chunk))
        ]
        logits = self.executor.step(tokens, sequences, ends[ready])
        for request, chunk in batch:
            request.advance(len(chunk))
        self._keep_prompts(batch)
        for row, i in enumerate(ready):
            request = batch[i][0]
            try:
                request.accept(logits[row])
            except RequestError as error:  # of its own sampling: the others go on
                request.fail(error)

    def _retire(self, request: Request) -> None:
        self._running.remove(request)
        if self._executor is None:
            return
        if request.prefix is None or request.failed:
            self._executor.free_sequence(request.sequence)
        else:
            self._keep(request.prefix, request.sequence, request.cached)


def _fail(batch: Batch, error: Exception) -> None:
    for request, _ in batch:
        request.fail(error)
