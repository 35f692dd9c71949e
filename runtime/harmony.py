"""Replies in OpenAI's Harmony format, as gpt-oss writes them.

    <|start|>assistant<|channel|>analysis<|message|>...<|end|>
    <|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{...}<|call|>
    <|start|>assistant<|channel|>final<|message|>...<|return|>

What is between `<|...|>` are single tokens, so that a text cannot forge them. Nothing that a model
says is lost: what follows no rule of the format becomes a message without a channel.
"""

from collections.abc import Sequence

from moesaic.runtime.results import ReplyEvent
from moesaic.runtime.tokenizer import Tokenizer

__all__ = ["HarmonyParser"]

MAX_HEADER_TOKENS = 64

_MARKS = ("start", "channel", "constrain", "message", "end", "return", "call")
_NEEDED = ("start", "channel", "message", "end")


class HarmonyParser:
    """Parses one reply; see `moesaic.runtime.reply.ReplyParser`.

    Args:
        tokenizer: Whose ids they are.
        prompt: The ids before the reply, which end with the beginning of a message, as a rule
            ``<|start|>assistant``.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._marks = _marks(tokenizer)
        self._message = -1
        self._state = "between"  # or "header" or "content"
        self._begin_header("assistant")
        for token in _last_message(prompt, self._marks):
            self.push(token)
        self._message = 0 if self._state == "content" else -1
        if self._state == "header" and len(self._fields) == 1:
            self._begin_header(self._tokenizer.decode(self._fields[0][1]).strip() or "assistant")

    @staticmethod
    def fits(tokenizer: Tokenizer) -> bool:
        """Whether the model has the tokens of the format."""
        return set(_NEEDED) <= set(_marks(tokenizer).values())

    def push(self, token: int) -> list[ReplyEvent]:
        """Returns what the token adds: often one event, none within a header."""
        mark = self._marks.get(token)
        if mark is None:
            is_end = token in self._tokenizer.eos_ids
            return self._on_end("return") if is_end else self._on_text(token)
        if mark in ("end", "return", "call"):
            return self._on_end(mark)
        if mark == "start":
            events = self._close("malformed")
            self._begin_header("")
            return events
        return self._on_header_mark(mark)

    def finish(self) -> list[ReplyEvent]:
        """Returns the end of a message that has none."""
        return self._close("cut")

    def _on_text(self, token: int) -> list[ReplyEvent]:
        if self._state == "header":
            self._fields[-1][1].append(token)
            return self._give_up_header() if self._is_no_header else []
        if self._state == "between":
            self._begin_content(None, None, None)
        text = self._decoder.push(token)
        return [self._event(text)] if text else []

    def _on_end(self, mark: str) -> list[ReplyEvent]:
        if self._state == "header" and self._has_text:
            self._read_header()
        return self._close(mark)

    def _on_header_mark(self, mark: str) -> list[ReplyEvent]:
        if self._state == "header":
            if mark == "message":
                self._read_header()
            else:
                self._fields.append((mark, []))
            return []
        if self._state == "content" and mark != "channel":
            return []  # means nothing within a content
        events = self._close("malformed")  # the model forgot <|end|><|start|>assistant
        self._begin_header("assistant")
        if mark == "message":
            self._read_header()
        else:
            self._fields.append((mark, []))
        return events

    def _begin_header(self, role: str) -> None:
        self._state = "header"
        self._role = role
        self._fields: list[tuple[str, list[int]]] = [("role", [])]

    @property
    def _has_text(self) -> bool:
        return any(tokens for _, tokens in self._fields)

    @property
    def _is_no_header(self) -> bool:
        """Whether the text so far can't be one: too long, or more after a role than `to=`."""
        if sum(len(tokens) for _, tokens in self._fields) > MAX_HEADER_TOKENS:
            return True
        if len(self._fields) > 1 or not self._role:
            return False
        text = self._tokenizer.decode(self._fields[0][1]).lstrip()
        return not text.startswith("to="[: len(text)])

    def _give_up_header(self) -> list[ReplyEvent]:
        """Turns what was taken for a header into content."""
        tokens = [token for _, field in self._fields for token in field]
        self._role = self._role or "assistant"
        self._begin_content(None, None, None)
        text = "".join([self._decoder.push(token) for token in tokens])
        return [self._event(text)] if text else []

    def _read_header(self) -> None:
        """Reads the fields of the header and begins the content."""
        words: dict[str, list[str]] = {"role": [], "channel": [], "constrain": []}
        recipient = None
        for name, tokens in self._fields:
            for word in self._tokenizer.decode(tokens).split():
                if word.startswith("to="):
                    recipient = word.removeprefix("to=") or None
                else:
                    words[name].append(word)
        self._role = " ".join([self._role, *words["role"]]).strip() or "assistant"
        channel = words["channel"][0] if words["channel"] else None
        content_type = " ".join([*words["channel"][1:], *words["constrain"]])
        self._begin_content(channel, recipient, content_type or None)

    def _begin_content(
        self, channel: str | None, recipient: str | None, content_type: str | None
    ) -> None:
        self._state = "content"
        self._message += 1
        self._head = (channel, recipient, content_type)
        self._decoder = self._tokenizer.stream(continues=True)

    def _close(self, end: str) -> list[ReplyEvent]:
        """Ends the message, if there is one."""
        events = []
        if self._state == "content":
            events = [self._event(self._decoder.flush(), end)]
        self._state = "between"
        self._role = "assistant"
        return events

    def _event(self, text: str, end: str | None = None) -> ReplyEvent:
        return ReplyEvent(self._message, self._role, *self._head, text, end)


def _marks(tokenizer: Tokenizer) -> dict[int, str]:
    """The names of the format's tokens by id."""
    names = {f"<|{name}|>": name for name in _MARKS}
    return {
        i: names[token.content]
        for i, token in tokenizer.added_tokens.items()
        if token.special and token.content in names
    }


def _last_message(prompt: Sequence[int], marks: dict[int, str]) -> Sequence[int]:
    """The ids from the last `<|start|>` on."""
    for i in reversed(range(len(prompt))):
        if marks.get(prompt[i]) == "start":
            return prompt[i:]
    return []
