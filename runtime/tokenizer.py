"""The tokenizer of a plan directory: text to ids and back."""

import codecs
import json
import os
import re
import threading
import weakref
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from moesaic.errors import PlanError
from moesaic.plan_file import file_inside, reading
from moesaic.small_file import read_small

MAX_TOKENIZER_BYTES = 256 << 20
MAX_CONFIG_BYTES = 64 << 20
MAX_TEMPLATE_BYTES = 4 << 20
MAX_TEMPLATES = 100

_AGAIN = "partition the model again"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Encodes and decodes text with the tokenizer files of a plan directory.

    `tokenizer.json` is read at the first use, for large vocabularies take a second; it is kept open
    until then, so that the folder may be moved or deleted. Methods may be called from several
    threads.

    Args:
        folder: The plan directory.

    Raises:
        PlanError: A file is missing or malformed (here, or at the first use of `tokenizer.json`).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._config = _read_json(self.folder, "tokenizer_config.json")
        self._generation = _read_json(self.folder, "generation_config.json")
        self._template = _read_template(self.folder)
        self._named_templates = _read_named_templates(self.folder)
        self._file = _open(self.folder, "tokenizer.json")
        weakref.finalize(self, os.close, self._file)
        self._lock = threading.Lock()
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_directory(cls, folder: str | Path) -> "Tokenizer":
        """Opens the tokenizer of a plan directory."""
        return cls(folder)

    @property
    def generation_config(self) -> dict[str, Any]:
        """Content of `generation_config.json`."""
        return self._generation

    @cached_property
    def chat_template(self) -> str | None:
        """Source of the chat template, or None if the model has none."""
        try:
            return None if self._template is None else self._template.decode()
        except UnicodeDecodeError as error:
            path = self.folder / "chat_template.jinja"
            raise PlanError(f"{path}: cannot be read: {error}", hint=_AGAIN) from error

    @property
    def chat_templates(self) -> dict[str, str]:
        """Sources of the chat templates besides that one, by name, such as ``tool_use``.

        Assign one to `chat_template` to use it.
        """
        return dict(self._named_templates)

    @cached_property
    def backend(self) -> Backend:
        """The tokenizer of the `tokenizers` library. Do not change its settings."""
        path = self.folder / "tokenizer.json"
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                return Backend.from_buffer(file.read())
        except Exception as error:  # the library raises nothing narrower
            raise PlanError(f"{path}: cannot be loaded: {error}", hint=_AGAIN) from error

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id that has a text."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def adds_bos(self) -> bool:
        """Whether an encoded text begins with the BOS token."""
        return bool(self._config.get("add_bos_token")) and self.bos_id is not None

    @property
    def bos_id(self) -> int | None:
        """Id of the BOS token, if there is one."""
        return self._ids("bos_token_id")[0] if self._ids("bos_token_id") else None

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end generation."""
        return frozenset(self._ids("eos_token_id"))

    @cached_property
    def special_texts(self) -> dict[str, str]:
        """Texts of `bos_token`, `eos_token`, `pad_token` and `unk_token`, those that exist."""
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {
            name: self._config[name] for name in names if isinstance(self._config.get(name), str)
        }

    def unused_ids(self, rows: int) -> list[int]:
        """Returns the ids below `rows` that must never be sampled: padding and unused tokens."""
        ids = set(self._ids("suppress_tokens"))
        named = set(self.backend.get_vocab(with_added_tokens=True).values())
        return [i for i in range(rows) if i in ids or i not in named]

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Returns the ids of a text.

        Args:
            text: Any text; lone surrogates count as U+FFFD.
            add_special: Put BOS before and EOS after the text as far as the model asks for it.
            parse_special: Whether the texts of special tokens stand for these tokens. Leave it off
                for text that is not your own.
        """
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        backend = self.backend
        with self._lock:  # the flag belongs to the backend, not to the call
            backend.encode_special_tokens = not parse_special
            ids: list[int] = backend.encode(text, add_special_tokens=add_special).ids
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Returns the text of ids. Bytes that are not UTF-8 become U+FFFD, unknown ids nothing."""
        decoder = self.stream(skip_special=skip_special)
        return "".join([decoder.push(i) for i in ids]) + decoder.flush()

    def stream(self, *, skip_special: bool = True, continues: bool = False) -> "StreamDecoder":
        """Returns a decoder for ids that come one by one; see `StreamDecoder`."""
        return StreamDecoder(self, skip_special=skip_special, continues=continues)

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes that a token stands for, b"" for an id without a token."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._token_bytes(token_id)
        return found

    def is_special(self, token_id: int) -> bool:
        """Tells whether `decode` skips the token."""
        return token_id in self._special_ids

    @cached_property
    def added_tokens(self) -> dict[int, Any]:
        """The backend's added tokens by id; they have `content`, `special`, `lstrip`, `rstrip`."""
        added: dict[int, Any] = self.backend.get_added_tokens_decoder()
        return added

    @cached_property
    def strips_prefix(self) -> bool:
        """Whether the first space of a text is an artefact that decoding drops."""
        return any(step.get("type") == "Strip" for step in self._decoders)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(i for i, token in self.added_tokens.items() if token.special)

    @cached_property
    def _decoders(self) -> list[dict[str, Any]]:
        decoder = self.backend.decoder
        state = json.loads(decoder.__getstate__()) if decoder is not None else {}
        steps: list[dict[str, Any]] = state.get("decoders", [state])
        return steps

    @cached_property
    def _byte_level(self) -> bool:
        return any(step.get("type") == "ByteLevel" for step in self._decoders)

    def _token_bytes(self, token_id: int) -> bytes:
        text = self.backend.id_to_token(int(token_id)) if 0 <= token_id < 1 << 32 else None
        if text is None:
            return b""
        if token_id in self.added_tokens and self._byte_level:
            return str(text).encode()
        if self._byte_level:
            table = _BYTE_OF_CHARACTER
            if all(c in table for c in text):
                return bytes(table[c] for c in text)
            return str(text).encode()
        match = _BYTE_TOKEN.fullmatch(text)
        return bytes([int(match[1], 16)]) if match else str(text).replace("▁", " ").encode()

    def _ids(self, key: str) -> list[int]:
        value = self._generation.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            path = self.folder / "generation_config.json"
            message = f"{path}: {key}: expected token ids but got {str(value)[:80]}"
            raise PlanError(message, hint=_AGAIN)
        return values


class StreamDecoder:
    """Turns ids into text as they come, never cutting a character.

    The pieces put together are what `Tokenizer.decode` returns for all the ids.

    Args:
        tokenizer: Whose ids they are.
        skip_special: Leave out special tokens.
        continues: The text continues another one, so its first space is meant.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special: bool = True, continues: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special
        self._strip = tokenizer.strips_prefix and not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Returns the text that is complete once this token is known, often all of the token's."""
        if self._skip and self._tokenizer.is_special(token_id):
            return ""
        return self._stripped(self._utf8.decode(self._tokenizer.token_bytes(token_id)))

    def flush(self) -> str:
        """Ends the text: returns U+FFFD if it ends within a character."""
        return self._stripped(self._utf8.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        if text and self._strip:
            self._strip = False
            return text.removeprefix(" ")
        return text


def _byte_of_character() -> dict[str, int]:
    """The printable alphabet in which byte-level vocabularies write bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in plain}
    rest = [b for b in range(256) if chr(b) not in table]
    return table | {chr(0x100 + i): b for i, b in enumerate(rest)}


_BYTE_OF_CHARACTER = _byte_of_character()


def _open(folder: Path, name: str) -> int:
    path = file_inside(folder, name)
    with reading(path):
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            message = f"{path}: {size} bytes, more than the {MAX_TOKENIZER_BYTES} allowed"
            raise PlanError(message, hint=_AGAIN)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _read_template(folder: Path) -> bytes | None:
    if not os.path.lexists(folder / "chat_template.jinja"):
        return None
    path = file_inside(folder, "chat_template.jinja")
    with reading(path):
        return read_small(path, MAX_TEMPLATE_BYTES)


def _read_named_templates(folder: Path) -> dict[str, str]:
    names = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if len(names) > MAX_TEMPLATES:
        raise PlanError(
            f"{folder / 'additional_chat_templates'}: {len(names)} chat templates, more than the "
            f"{MAX_TEMPLATES} allowed",
            hint=_AGAIN,
        )
    found = {}
    for name in names:
        path = file_inside(folder, str(name.relative_to(folder)))
        with reading(path):
            found[name.stem] = read_small(path, MAX_TEMPLATE_BYTES).decode(errors="replace")
    return found


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = file_inside(folder, name)
    with reading(path):
        data = read_small(path, MAX_CONFIG_BYTES)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: cannot be read: {error}", hint=_AGAIN) from error
    if not isinstance(value, dict):
        message = f"{path}: expected an object but got {type(value).__name__}"
        raise PlanError(message, hint=_AGAIN)
    return value
