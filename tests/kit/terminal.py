"""A program in a pseudo-terminal, driven as by a person."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import Self

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\].*?(\x07|\x1b\\)|[=>()][0-9AB]?)")
PATIENCE = 60  # seconds until a test gives up


class Terminal:
    """Runs `python -m moesaic ARGUMENTS` with a terminal for stdin, stdout and stderr."""

    def __init__(self, *arguments: object, **env: str) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "moesaic", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._fd = ours
        self.seen = ""  # everything written, without escape sequences
        self._read_to = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, text: str) -> str:
        """Waits until the text is written; returns what came before it since the last call."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen[self._read_to :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[self._read_to :]!r}"
            assert self._read(), f"ended without {text!r}: {self.seen[self._read_to :]!r}"
        at = self.seen.index(text, self._read_to)
        before, self._read_to = self.seen[self._read_to : at], at + len(text)
        return before

    def expect_more(self, count: int) -> None:
        """Waits for so many more characters."""
        while len(self.seen) < self._read_to + count:
            assert self._read(), f"ended: {self.seen[self._read_to :]!r}"
        self._read_to += count

    def end(self) -> int:
        """Reads to the end and returns the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], PATIENCE)
        assert ready, f"nothing came after {self.seen[-200:]!r}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen = _ESCAPES.sub("", self.seen + data.decode(errors="replace"))
        return bool(data)


def _take_terminal() -> None:
    """Makes stdin the controlling terminal, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
