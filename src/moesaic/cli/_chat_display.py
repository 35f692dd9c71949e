"""How a chat looks: answers on stdout, thoughts dim, everything else on stderr."""

from collections.abc import Iterable

from rich.text import Text

from moesaic.cli._render import err, out, tame
from moesaic.errors import MoesaicError
from moesaic.runtime.reply import THOUGHT
from moesaic.runtime.results import ReplyEvent

__all__ = ["Display"]

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Display:
    """Shows replies as they come. What a model says never commands the terminal.

    Args:
        show_thoughts: Whether thoughts are shown; may be changed.
    """

    def __init__(self, *, show_thoughts: bool) -> None:
        self.show_thoughts = show_thoughts
        self._terminal = out.is_terminal

    def reply(self, events: Iterable[ReplyEvent]) -> None:
        """Shows a reply, each message that is not the answer under its name."""
        shown = None
        hidden = False
        try:
            for event in events:
                if self._is_hidden(event):
                    hidden = self._tell_once(hidden)
                    continue
                if event.text and event.message != shown:
                    self._head(event, first=shown is None)
                    shown = event.message
                self._write(event.text, dim=event.channel == THOUGHT)
        finally:
            self._write("\n")

    def note(self, text: str) -> None:
        """Says something of our own, on stderr."""
        err.print(Text(tame(text), style="dim"))

    def error(self, error: MoesaicError) -> None:
        """Tells an error after which the chat goes on."""
        err.print(Text.assemble(("error: ", "bold red"), tame(str(error))))
        if error.hint:
            err.print(Text.assemble(("hint: ", "bold cyan"), tame(error.hint)))

    def _is_hidden(self, event: ReplyEvent) -> bool:
        return event.channel == THOUGHT and event.recipient is None and not self.show_thoughts

    def _tell_once(self, told: bool) -> bool:
        if self._terminal and not told:
            self.note("(thinking; /think on shows it)")
        return True

    def _head(self, event: ReplyEvent, *, first: bool) -> None:
        """Names a message unless it is the answer and nothing came before."""
        if not first:
            self._write("\n\n")
        name = f"{event.channel} to {event.recipient}" if event.recipient else None
        name = name or ("thoughts" if event.channel == THOUGHT else None)
        if name:
            self._write(f"[{name}]\n", dim=True)

    def _write(self, text: str, *, dim: bool = False) -> None:
        if self._terminal:
            text = tame(text)
            if dim and text and out.color_system:
                text = f"{_DIM}{text}{_PLAIN}"
        out.file.write(text)
        out.file.flush()
