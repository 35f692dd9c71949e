"""A chat's turns: messages are answered, lines that begin with a slash are commands."""

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import msgspec

from moesaic.cli._chat_display import Display
from moesaic.errors import MoesaicError, RequestError
from moesaic.runtime import Runtime
from moesaic.runtime.conversation import Conversation
from moesaic.runtime.results import ReplyEvent
from moesaic.small_file import read_small

__all__ = ["ChatSession"]

_SETTINGS = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)
MAX_FILE_BYTES = 64 << 20
MAX_DIGITS = 7
_FULL = "/clear starts anew, /drop forgets the oldest turn, /undo takes back the last"


class _Message(msgspec.Struct):
    """A message of a saved conversation; further fields are kept as they are."""

    role: str
    content: str


class ChatSession:
    """Runs a chat until its input ends or /exit.

    Args:
        runtime: An open runtime.
        conversation: What was said in it.
        sampling: Sampling arguments, changed by /set.
        show_thoughts: Whether thoughts are shown, changed by /think.
        interactive: Whether somebody sits there: errors are told and the chat goes on.
    """

    def __init__(
        self,
        runtime: Runtime,
        conversation: Conversation,
        sampling: dict[str, Any],
        *,
        show_thoughts: bool,
        interactive: bool,
    ) -> None:
        self._runtime = runtime
        self._conversation = conversation
        self._sampling = sampling
        self._interactive = interactive
        self._display = Display(show_thoughts=show_thoughts)
        self._done = False
        self._replies = self._tokens = 0
        self._commands: dict[str, tuple[Callable[[str], None], str, str]] = {
            "help": (self._help, "", "this list"),
            "exit": (self._exit, "", "leave; so do Ctrl-D and Ctrl-C at an empty prompt"),
            "clear": (self._clear, "", "forget the conversation, not the system message"),
            "system": (self._system, "[TEXT]", "show or set the system message; `off` removes it"),
            "undo": (self._undo, "", "take back the last message and its reply"),
            "retry": (self._retry, "", "have the last message answered again"),
            "drop": (self._drop, "[N]", "forget the oldest turns, default one"),
            "save": (self._save, "FILE", "write the conversation as JSON"),
            "load": (self._load, "FILE", "go on with a saved conversation"),
            "set": (self._set, "[NAME [VALUE]]", "show or change sampling; `default` resets"),
            "think": (self._think, "[on|off]", "show or hide thoughts"),
            "stats": (self._stats, "", "context, speed and memory"),
        }

    def run(self, lines: Iterable[str]) -> None:
        """Answers messages and obeys commands, one a line of input."""
        if self._interactive:
            self._display.note("/help lists commands, Alt-Enter begins a new line, Ctrl-D leaves")
        for line in lines:
            try:
                self._obey(line)
            except MoesaicError as error:
                if not self._interactive:
                    raise
                self._display.error(error)
            if self._done:
                return

    def command(self, line: str) -> None:
        """Obeys one line that begins with a slash."""
        name, _, rest = line[1:].partition(" ")
        name = {"quit": "exit", "bye": "exit", "?": "help"}.get(name, name)
        if name not in self._commands:
            self._display.note(f"unknown command /{name}")
            name, rest = "help", ""
        self._commands[name][0](rest.strip())

    def _obey(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            self.command(line)
        elif line.strip():
            text = line.removeprefix("/") if line.startswith("//") else line
            self._answer(lambda: self._conversation.say(text, **self._sampling))

    def _answer(self, ask: Callable[[], Generator[ReplyEvent, None, None]]) -> None:
        """Shows a reply; Ctrl-C stops it."""
        events = ask()
        try:
            self._display.reply(events)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._display.note("(stopped)")
        finally:
            events.close()
        self._replies += 1
        self._after_reply()

    @property
    def _context(self) -> int:
        return self._runtime.limits["context"]

    def _after_reply(self) -> None:
        used = f"context {self._conversation.used} of {self._context}"
        done = self._conversation.completion
        if done is None:
            self._display.note(used)
            return
        self._tokens += done.usage.completion_tokens
        self._display.note(
            f"{done.usage.completion_tokens} tokens, {done.decode_tokens_per_second:.1f} tokens/s; "
            f"prompt {done.prefill_tokens_per_second:.1f} tokens/s; {used}"
        )
        if done.finish_reason == "length":
            full = self._conversation.used >= self._context
            self._display.note(f"the context is full: {_FULL}" if full else "(max_tokens reached)")

    def _help(self, _: str) -> None:
        rows = [(f"/{name} {args}", what) for name, (_run, args, what) in self._commands.items()]
        width = max(len(command) for command, _what in rows)
        for command, what in rows:
            self._display.note(f"{command:{width}}  {what}")
        self._display.note("//TEXT says /TEXT; Alt-Enter begins a new line; Ctrl-C stops a reply")

    def _exit(self, _: str) -> None:
        self._done = True

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._display.note("forgotten")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "off" else text
        self._display.note(f"system message: {self._conversation.system or 'none'}")

    def _undo(self, _: str) -> None:
        text = self._conversation.undo()
        self._display.note("nothing was said" if text is None else f"taken back: {text}")

    def _retry(self, _: str) -> None:
        self._answer(lambda: self._conversation.retry(**self._sampling))

    def _drop(self, count: str) -> None:
        if count and not (count.isascii() and count.isdecimal() and len(count) < MAX_DIGITS):
            raise RequestError(
                f"/drop: {count[:20]!r} is not a number of turns", hint="write for instance /drop 2"
            )
        dropped = self._conversation.drop_oldest(int(count or 1))
        self._display.note(f"{dropped} turns forgotten")

    def _save(self, name: str) -> None:
        path = _path(name)
        said = {"system": self._conversation.system, "messages": self._conversation.messages}
        try:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(said)) + b"\n")
        except OSError as error:
            raise RequestError(
                f"{path}: cannot be written: {error.strerror}", hint="check the path"
            ) from error
        self._display.note(f"saved {len(self._conversation.messages)} messages in {path}")

    def _load(self, name: str) -> None:
        path = _path(name)
        try:
            said = msgspec.json.decode(read_small(path, MAX_FILE_BYTES), type=dict[str, Any])
            messages = msgspec.convert(said.get("messages"), list[dict[str, Any]])
            msgspec.convert(messages, list[_Message])
            self._conversation.system = msgspec.convert(said.get("system"), str | None)
        except OSError as error:
            raise RequestError(
                f"{path}: cannot be read: {error.strerror}", hint="give a file made by /save"
            ) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(
                f"{path}: is not a saved conversation: {error}", hint="give a file made by /save"
            ) from error
        self._conversation.messages = messages
        self._display.note(f"loaded {len(messages)} messages")

    def _set(self, text: str) -> None:
        name, _, value = text.partition(" ")
        known = ", ".join([*_SETTINGS, "reasoning_effort"])
        if name and name not in known.split(", "):
            raise RequestError(
                f"/set: {name!r} is no setting", hint=f"known: {', '.join(_SETTINGS)}"
            )
        if name == "reasoning_effort" and value:
            self._conversation.template_vars[name] = value.strip()
        elif value.strip() == "default":
            self._sampling.pop(name, None)
        elif value:
            changed = {**self._sampling, name: _value(name, value.strip())}
            self._runtime.defaults.updated(**changed)
            self._sampling = changed
        params = self._runtime.defaults.updated(**self._sampling)
        for shown in [name] if name in _SETTINGS else _SETTINGS:
            self._display.note(f"{shown} = {getattr(params, shown)!r}")

    def _think(self, text: str) -> None:
        if text not in ("", "on", "off"):
            raise RequestError(
                f"/think: expected on or off but got {text!r}", hint="write /think on"
            )
        if text:
            self._display.show_thoughts = text == "on"
        self._display.note(f"thoughts are {'shown' if self._display.show_thoughts else 'hidden'}")

    def _stats(self, _: str) -> None:
        said = len(self._conversation.messages)
        memory = sum(row["total"] for row in self._runtime.memory())
        self._display.note(f"{said} messages; context {self._conversation.used} of {self._context}")
        self._display.note(f"{self._replies} replies, {self._tokens} tokens generated")
        self._display.note(f"{self._runtime.threads} threads; {memory / 2**20:.0f} MiB")


def _path(name: str) -> Path:
    if not name:
        raise RequestError("no file is named", hint="write for instance /save talk.json")
    return Path(name).expanduser()


def _value(name: str, text: str) -> Any:
    """A setting's value as typed: a number where it is one, else text."""
    if name == "stop":
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
