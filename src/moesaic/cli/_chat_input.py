"""Messages typed in a terminal, with line editing and history."""

import os
from collections.abc import Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from moesaic.cache import cache_folder
from moesaic.cli._render import err

__all__ = ["Typed"]


class Typed:
    """Messages typed at a prompt; ends at Ctrl-D, and at Ctrl-C when nothing is typed.

    Enter sends, Alt-Enter (or Esc, Enter) begins a new line; a pasted text keeps its lines.

    Args:
        history: Keep what is typed in the cache folder, for this and later sessions.
    """

    def __init__(self, *, history: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            history=_history() if history else InMemoryHistory(),
            prompt_continuation="... ",
        )

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                yield self._session.prompt(">>> ")
            except (EOFError, KeyboardInterrupt):
                return


def _history() -> History:
    path = cache_folder() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        err.print(f"no history is kept: {path}: {error.strerror}", markup=False)
        return InMemoryHistory()
    return FileHistory(path)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys
