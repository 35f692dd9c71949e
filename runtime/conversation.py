"""Conversations turn by turn: what was said, what may be taken back, how full the context is."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moesaic.errors import RequestError
from moesaic.runtime.reply import ANSWER, THOUGHT, ReplyParser, reply_parser
from moesaic.runtime.results import Completion, Piece, ReplyEvent
from moesaic.runtime.runtime import Runtime
from moesaic.runtime.stopping import StopMatcher

__all__ = ["Conversation"]


class Conversation:
    """A conversation with a model.

    A reply is iterated event by event. Whoever stops early, by closing the iterator or by an
    exception, keeps what was said until then.

    Args:
        runtime: An open runtime whose model has a chat template.
        system: Instructions for the model, its system message.
        template_vars: Variables for the chat template, such as ``reasoning_effort``.
        reuse: Keep what was said in the cache, so that a turn runs only what is new. On the CPU
            replies are the same without.

    Attributes:
        system: As given; may be changed between turns.
        template_vars: Likewise.
        messages: Users' and model's messages, oldest first. A model's have its thoughts, if any,
            as ``thinking``; templates do not get these back, for models are not to see thoughts of
            earlier turns, and not all templates leave them out.
        completion: Of the last reply, None if it was stopped.
        used: Tokens of context that the last turn took, reply included.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        system: str | None = None,
        template_vars: Mapping[str, Any] | None = None,
        reuse: bool = True,
    ) -> None:
        self.system = system
        self.template_vars = dict(template_vars or {})
        self.messages: list[dict[str, Any]] = []
        self.completion: Completion | None = None
        self.used = 0
        self._runtime = runtime
        self._prefix = runtime.new_prefix() if reuse else None

    def say(self, text: str, **sampling: Any) -> Generator[ReplyEvent, None, None]:
        """Says something and yields the events of the reply.

        Args:
            text: The user's message.
            **sampling: As for `Runtime.generate`; a `stop` string is looked for in the answer, not
                in thoughts, and by default a reply may fill the context.

        Raises:
            RequestError: The conversation is longer than the context, the chat template refuses it,
                or a sampling argument is wrong. Then nothing was said.
        """
        return self._ask([*self.messages, {"role": "user", "content": text}], sampling)

    def retry(self, **sampling: Any) -> Generator[ReplyEvent, None, None]:
        """Forgets the last reply and yields the events of another one; arguments as for `say`.

        Raises:
            RequestError: Nothing was said yet, or as for `say`.
        """
        asked = self._last_question()
        if asked is None:
            raise RequestError("there is nothing to try again", hint="say something first")
        return self._ask(self.messages[: asked + 1], sampling)

    def undo(self) -> str | None:
        """Takes back the last message of the user and its reply; returns it, None if none is."""
        asked = self._last_question()
        if asked is None:
            return None
        text = str(self.messages[asked]["content"])
        del self.messages[asked:]
        return text

    def drop_oldest(self, turns: int = 1) -> int:
        """Forgets the oldest turns, the system message stays; returns how many there were."""
        starts = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        dropped = min(turns, len(starts))
        del self.messages[: starts[dropped] if dropped < len(starts) else None]
        return dropped

    def clear(self) -> None:
        """Forgets all that was said; the system message stays."""
        self.messages.clear()
        self.completion = None
        self.used = 0

    def tokens(self) -> list[int]:
        """Token ids of the conversation as the next reply would see it, nothing new being said."""
        return self._runtime.chat_tokens(self._full(self.messages), **self.template_vars)

    def _full(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *({k: m[k] for k in m if k != "thinking"} for m in messages)]

    def _last_question(self) -> int | None:
        roles = [message["role"] for message in self.messages]
        return len(roles) - 1 - roles[::-1].index("user") if "user" in roles else None

    def _ask(
        self, messages: list[dict[str, Any]], sampling: dict[str, Any]
    ) -> Generator[ReplyEvent, None, None]:
        prompt = self._runtime.chat_tokens(self._full(messages), **self.template_vars)
        context = self._runtime.limits["context"]
        if len(prompt) >= context:
            raise RequestError(
                f"the conversation has {len(prompt)} tokens, the context is {context}",
                hint="forget the oldest turns (/drop, or drop_oldest) or all (/clear, or clear); "
                "or open the model with a larger context",
            )
        params = self._runtime.defaults.updated(**sampling)  # checks `stop` too
        options = {"max_tokens": context, **sampling, "stop": None}
        pieces = self._runtime.stream(prompt, reply=True, prefix=self._prefix, **options)
        parser = reply_parser(self._runtime.tokenizer, prompt)
        return self._reply(messages, prompt, pieces, _Answer(parser, params.stop))

    def _reply(
        self,
        messages: list[dict[str, Any]],
        prompt: list[int],
        pieces: Generator[Piece, None, None],
        answer: "_Answer",
    ) -> Generator[ReplyEvent, None, None]:
        self.messages = messages
        self.completion = None
        self.used = len(prompt)
        try:
            for piece in pieces:
                self.used += len(piece.tokens)
                self.completion = piece.completion
                yield from answer.events(piece)
                if answer.stopped:
                    break
        except Exception:
            self.messages.pop()
            raise
        finally:
            pieces.close()
            if self.messages and self.messages[-1]["role"] == "user":
                self.messages = [*self.messages, answer.message()]


class _Answer:
    """A reply as it is read: stop strings are looked for in the answer alone."""

    def __init__(self, parser: ReplyParser, stops: tuple[str, ...]) -> None:
        self._parser = parser
        self._matcher = StopMatcher(stops)
        self._texts: dict[str, list[str]] = {THOUGHT: [], "commentary": [], ANSWER: []}

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer."""
        return self._matcher.stopped

    def events(self, piece: Piece) -> Generator[ReplyEvent, None, None]:
        """Yields what a piece adds to the reply."""
        tokens = list(piece.tokens)
        last = piece.completion
        if last is not None and last.stop_token is not None:
            tokens.append(last.stop_token)
        events = [event for token in tokens for event in self._parser.push(token)]
        if last is not None:
            events += self._parser.finish()
        for event in map(self._until_stop, events):
            if event.role == "assistant" and event.recipient is None:
                self._texts[_kind(event)].append(event.text)
            if event.text or event.end:
                yield event
            if self.stopped:
                return

    def message(self) -> dict[str, Any]:
        """The reply as the chat template gets it back."""
        thoughts, plan, answer = ("".join(texts) for texts in self._texts.values())
        message = {"role": "assistant", "content": answer or plan}
        if thoughts:
            message["thinking"] = thoughts
        return message

    def _until_stop(self, event: ReplyEvent) -> ReplyEvent:
        if _kind(event) != ANSWER:
            return event
        text = self._matcher.push(event.text)
        if self.stopped:
            return replace(event, text=text, end="return")
        return replace(event, text=text + (self._matcher.flush() if event.end else ""))


def _kind(event: ReplyEvent) -> str:
    """The channel of an event; what has none is an answer."""
    return event.channel if event.channel in (THOUGHT, "commentary") else ANSWER
