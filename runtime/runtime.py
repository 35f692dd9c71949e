"""Runtime: executes a plan. Prompts in, text or logits out."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, overload

import numpy as np
import numpy.typing as npt

from moesaic.errors import PlanError, RequestError
from moesaic.plan_format import PlanFile
from moesaic.runtime import _native
from moesaic.runtime.chat import check_variables, encode_chat
from moesaic.runtime.plan import load_plan
from moesaic.runtime.prefix import Prefix
from moesaic.runtime.prompts import Prompt, check_tokens, is_list_of_prompts
from moesaic.runtime.request import Request
from moesaic.runtime.results import Completion, Piece
from moesaic.runtime.sampling import SamplingParams
from moesaic.runtime.scheduler import Scheduler
from moesaic.runtime.tokenizer import Tokenizer
from moesaic.usage_format import FORMAT as USAGE_FORMAT
from moesaic.usage_format import VERSION as USAGE_VERSION
from moesaic.usage_format import Usage

__all__ = ["Prompt", "Runtime", "limit_option"]


class Runtime:
    """An open plan.

    Several threads may use one runtime; their requests share its steps. On the CPU a request's
    result does not depend on the number of threads, the batch, or what else is running.

    Args:
        plan: A plan directory written by ``partition``.
        threads: CPU threads; by default the cores this process may use.
        context: Tokens of one sequence; may lower the plan's limit, as may ``sequences`` and
            ``batch``.
        sequences: Sequences live at once; further prompts wait their turn.
        batch: Tokens of one step.
        record_usage: Count which experts tokens choose, for `usage`.

    Raises:
        PlanError: The directory is not a plan, is damaged, or does not fit the options.
        DeviceError: The plan needs a device that is not here.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str],
        *,
        threads: int | None = None,
        context: int | None = None,
        sequences: int | None = None,
        batch: int | None = None,
        record_usage: bool = False,
    ) -> None:
        path = Path(plan)
        if path.suffix == ".gguf" and os.path.isfile(path):
            raise PlanError(
                f"{path} is a model file, not a plan",
                hint=f"partition it first: `partition {path} -o {path.with_suffix('')}/`, "
                "or open it with moesaic.Runtime",
            )
        loaded = load_plan(path)
        self.tokenizer = Tokenizer.from_directory(path)
        self.plan: PlanFile = loaded.file
        self.defaults = SamplingParams.from_generation_config(self.tokenizer.generation_config)
        executor = _native.Executor(
            loaded.program,
            str(loaded.weights),
            threads=limit_option("threads", threads),
            context=limit_option("context", context),
            sequences=limit_option("sequences", sequences),
            batch=limit_option("batch", batch),
            record_usage=bool(record_usage),
        )
        self._scheduler = Scheduler(executor)

    @overload
    def generate(self, prompt: Prompt, **sampling: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], **sampling: Any) -> list[Completion]: ...
    def generate(
        self, prompt: Prompt | Sequence[Prompt], **sampling: Any
    ) -> Completion | list[Completion]:
        """Continue a prompt, or a list of prompts as one batch.

        Args:
            prompt: Text, a flat list of token ids, or a list of either. Special tokens are not
                parsed out of text.
            **sampling: Fields of `SamplingParams`; the model's own defaults for the rest.

        Returns:
            A completion for one prompt, a list in the same order for a list.

        Raises:
            RequestError: A prompt is empty or longer than the context, or an argument is wrong.
        """
        if is_list_of_prompts(prompt):
            return self._complete(self._requests([self._encode(p) for p in prompt], sampling))
        return self._complete(self._requests([self._encode(cast(Prompt, prompt))], sampling))[0]

    def stream(
        self,
        prompt: Prompt,
        *,
        reply: bool = False,
        prefix: Prefix | None = None,
        **sampling: Any,
    ) -> Generator[Piece, None, None]:
        """Continue one prompt, yielding each piece as it is made; arguments as for `generate`.

        Closing the iterator early frees the sequence.

        Args:
            prompt: Text or token ids.
            reply: What is generated is a text of its own, as after `chat_tokens`, and does not go
                on in the middle of the prompt's.
            prefix: What `new_prefix` returned: tokens that this prompt shares with the last one
                given with it are not run again.
            **sampling: As for `generate`.
        """
        tokens = [self._encode(prompt)]
        return self._pieces(self._requests(tokens, sampling, reply=reply, prefix=prefix)[0])

    def new_prefix(self) -> Prefix:
        """What the cache keeps for the requests of one conversation; empty yet.

        It takes up to two of the runtime's sequences, as long as no other request needs them.
        """
        return Prefix(windowed=any(cache.window for cache in self.plan.caches))

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = ...,
        **sampling: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[True], **sampling: Any
    ) -> Iterator[Piece]: ...
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: bool = False, **sampling: Any
    ) -> Completion | Iterator[Piece]:
        """Answer a conversation, formatted by the model's chat template.

        Args:
            messages: ``{"role": ..., "content": ...}`` in order. Special tokens inside contents
                stay plain text.
            stream: Yield pieces, as `stream` does, instead of returning the completion.
            **sampling: As for `generate`; ``template_vars``, a mapping, is passed to the template.

        Raises:
            RequestError: The model has no chat template, the template refuses the messages, or as
                for `generate`.
        """
        variables = check_variables(sampling.pop("template_vars", None))
        tokens = self.chat_tokens(messages, **variables)
        request = self._requests([tokens], sampling, reply=True)[0]
        return self._pieces(request) if stream else self._complete([request])[0]

    def chat_tokens(self, messages: Sequence[Mapping[str, Any]], **template_vars: Any) -> list[int]:
        """Token ids of a conversation up to where the model's answer begins.

        Args:
            messages: As for `chat`.
            **template_vars: Passed to the model's chat template.

        Raises:
            RequestError: The model has no chat template, or it refuses the messages.
        """
        template = self.tokenizer.chat_template
        return encode_chat(self.tokenizer, template, messages, **template_vars)

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after each token of one fresh sequence (teacher-forced).

        Args:
            tokens: n token ids, at most the context.

        Returns:
            float32 [n, vocab]; row i predicts token i + 1.
        """
        ids = check_tokens(tokens, self.plan.model.vocab_size)
        if len(ids) > self.limits["context"]:
            raise self._too_long(len(ids))
        return self._scheduler.logits(np.array(ids, np.int32))

    def memory(self) -> list[dict[str, Any]]:
        """Bytes per device and purpose, as planned and as allocated."""
        return self._scheduler.executor.memory()

    def usage(self) -> Usage:
        """How often each expert was chosen by all tokens so far, of every request.

        Tokens of prompts and of replies count, also of requests that were cancelled or failed
        later; tokens that a step computes again, because a sequence crossed into its second rope
        table, count again. ``moesaic.usage_format`` saves it and adds it up.

        Raises:
            RequestError: The runtime was opened without ``record_usage``, or is closed.
        """
        tokens, experts = self._scheduler.executor.usage()
        return Usage(
            format=USAGE_FORMAT,
            version=USAGE_VERSION,
            architecture=self.plan.model.architecture,
            tokens=tokens,
            experts=experts,
            uuid=self.plan.uuid,
        )

    @property
    def limits(self) -> dict[str, int]:
        """Limits in force: context, sequences, batch, logits_rows."""
        return dict(self._scheduler.executor.limits)

    @property
    def threads(self) -> int:
        """CPU threads in use."""
        return self._scheduler.executor.threads

    def close(self) -> None:
        """Free all memory; the runtime cannot be used after."""
        self._scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str) and prompt:
            return self.tokenizer.encode(prompt)
        return check_tokens(prompt, self.plan.model.vocab_size)

    @cached_property
    def _banned(self) -> list[int]:
        """Ids never to sample; at the first request, since it loads the tokenizer."""
        return self.tokenizer.unused_ids(self.plan.model.vocab_size)

    def _too_long(self, count: int) -> RequestError:
        context = self.limits["context"]
        return RequestError(
            f"the prompt has {count} tokens, the context of this runtime is {context}",
            hint="shorten it, or partition with a larger --context",
        )

    def _requests(
        self,
        prompts: list[list[int]],
        sampling: dict[str, Any],
        *,
        reply: bool = False,
        prefix: Prefix | None = None,
    ) -> list[Request]:
        """Checked requests; a ``reply`` starts a text of its own, others continue the prompt's."""
        context = self.limits["context"]
        params = self.defaults.updated(**sampling)
        params.check_vocabulary(self.plan.model.vocab_size)
        for prompt in prompts:
            if len(prompt) >= context:
                raise self._too_long(len(prompt))
        return [
            Request(
                prompt,
                params,
                self.tokenizer,
                context,
                banned=self._banned,
                reply=reply,
                prefix=prefix,
            )
            for prompt in prompts
        ]

    def _complete(self, requests: list[Request]) -> list[Completion]:
        """Run requests as one batch; what an exception leaves unfinished is cancelled."""
        self._scheduler.submit(requests)
        try:
            return [self._scheduler.completion(request) for request in requests]
        finally:
            self._scheduler.cancel(requests)

    def _pieces(self, request: Request) -> Generator[Piece, None, None]:
        self._scheduler.submit([request])
        try:
            yield from self._scheduler.pieces(request)
        finally:
            self._scheduler.cancel([request])


def limit_option(name: str, value: int | None) -> int:
    """An option as the executor takes it, which knows 0 as "the plan's"."""
    if value is None:
        return 0
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 1 <= value < 2**31:
        raise RequestError(
            f"{name} must be a positive integer, not {value!r:.80}",
            hint="leave it out for the default",
        )
    return int(value)
