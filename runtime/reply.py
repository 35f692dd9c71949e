"""What a model says, told apart: its thoughts, its calls of tools, its answer.

A `ReplyParser` reads the token ids of a reply as they come. Marks count as such where they are
tokens: text that merely spells them does not.
"""

from collections.abc import Sequence
from typing import Protocol

from moesaic.runtime.harmony import HarmonyParser
from moesaic.runtime.results import ReplyEvent
from moesaic.runtime.tokenizer import Tokenizer

__all__ = ["ANSWER", "THOUGHT", "PlainParser", "ReplyParser", "ThinkParser", "reply_parser"]

THOUGHT = "analysis"
ANSWER = "final"


class ReplyParser(Protocol):
    """Turns token ids into events."""

    def push(self, token: int) -> list[ReplyEvent]:
        """Returns what a token of the reply adds, the one that ended it included."""
        ...

    def finish(self) -> list[ReplyEvent]:
        """Ends the reply: returns what was held back, and the end of a message that has none."""
        ...


def reply_parser(tokenizer: Tokenizer, prompt: Sequence[int]) -> ReplyParser:
    """Returns the parser for a model's replies, by the marks that its vocabulary has.

    Args:
        tokenizer: The model's tokenizer.
        prompt: The ids before the reply.
    """
    for parser in (HarmonyParser, ThinkParser):
        if parser.fits(tokenizer):
            return parser(tokenizer, prompt)
    return PlainParser(tokenizer)


class PlainParser:
    """A reply of one message, the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decoder = tokenizer.stream()
        self._ends = tokenizer.eos_ids
        self._end = "cut"

    def push(self, token: int) -> list[ReplyEvent]:
        """Returns the text of the token."""
        if token in self._ends:
            self._end = "return"
            return []
        text = self._decoder.push(token)
        return [self._event(text)] if text else []

    def finish(self) -> list[ReplyEvent]:
        """Returns the end of the answer."""
        return [self._event(self._decoder.flush(), self._end)]

    def _event(self, text: str, end: str | None = None) -> ReplyEvent:
        return ReplyEvent(0, "assistant", ANSWER, None, None, text, end)


class ThinkParser:
    """A reply with thoughts between `<think>` and `</think>`; white space around both is dropped.

    Args:
        tokenizer: Whose ids they are.
        prompt: The ids before the reply, which may end with `<think>`.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._open, self._close = _think_ids(tokenizer)
        self._ends = tokenizer.eos_ids
        self._end = "cut"
        self._message = 0
        self._begin(THOUGHT if self._is_open(prompt) else ANSWER)

    @staticmethod
    def fits(tokenizer: Tokenizer) -> bool:
        """Whether the model has the two tokens."""
        return None not in _think_ids(tokenizer)

    def push(self, token: int) -> list[ReplyEvent]:
        """Returns the text of the token, or the end of a message."""
        if token in self._ends:
            self._end = "return"
            return []
        if token == self._open and self._channel == ANSWER and not self._said:
            self._begin(THOUGHT)
            return []
        if token == self._close and self._channel == THOUGHT:
            events = [self._event(self._decoder.flush(), "end")]
            self._message += 1
            self._begin(ANSWER)
            return events
        return self._text(self._decoder.push(token))

    def finish(self) -> list[ReplyEvent]:
        """Returns the end of the message."""
        return [*self._text(self._decoder.flush()), self._event("", self._end)]

    def _is_open(self, prompt: Sequence[int]) -> bool:
        """Whether nothing but white space follows a last `<think>`."""
        for i in reversed(range(len(prompt))):
            if prompt[i] == self._open:
                return not self._tokenizer.decode(prompt[i + 1 :]).strip()
            if self._tokenizer.token_bytes(prompt[i]).strip():
                return False
        return False

    def _begin(self, channel: str) -> None:
        self._channel = channel
        self._decoder = self._tokenizer.stream(continues=True)
        self._said = False
        self._spaces = ""

    def _text(self, text: str) -> list[ReplyEvent]:
        """Holds white space back until more text comes; what begins a message is dropped."""
        text = self._spaces + text if self._said else text.lstrip()
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        self._said |= bool(kept)
        return [self._event(kept)] if kept else []

    def _event(self, text: str, end: str | None = None) -> ReplyEvent:
        return ReplyEvent(self._message, "assistant", self._channel, None, None, text, end)


def _think_ids(tokenizer: Tokenizer) -> tuple[int | None, int | None]:
    ids = {token.content: i for i, token in tokenizer.added_tokens.items()}
    return ids.get("<think>"), ids.get("</think>")
