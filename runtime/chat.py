"""Conversations as token ids, through the model's chat template.

Only the template's own text stands for special tokens: the text of messages, tools and other
variables never does, whatever it spells. Roles are the exception (templates build tokens from
them), so they must be plain names. Templates see the texts as they are: tests, splits and
replacements work. A template that computes with single characters of a message by means of Jinja
features that `foreign` does not know sees marked characters there; nothing is ever left out.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from moesaic.errors import RequestError
from moesaic.runtime.foreign import is_marked, mark, plain
from moesaic.runtime.template import render
from moesaic.runtime.tokenizer import Tokenizer

MAX_DEPTH = 32

_MESSAGES = 'give a list such as [{"role": "user", "content": "hi"}]'
_PLAIN = "give texts, numbers, true, false, None, and lists and mappings of these"
_ASSIGNED = "remove them: no text needs characters that Unicode has not defined"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
_BASIC_SPACES = "".join(c for c in map(chr, range(0x10000)) if c.isspace())
_SPACES = _BASIC_SPACES + str.__str__(mark(_BASIC_SPACES))

Message = Mapping[str, Any]


def encode_chat(
    tokenizer: Tokenizer,
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    **template_vars: Any,
) -> list[int]:
    """Returns the ids of a conversation.

    They are what tokenizing the rendered text as a whole gives, but that special tokens spelled
    out in messages or variables are text. BOS comes first, once, if the model asks for it.

    Args:
        tokenizer: The model's tokenizer.
        template: Source of the chat template.
        messages: What was said, oldest first: mappings with `role` and `content`, and whatever
            else the template knows (`tool_calls`, ...).
        add_generation_prompt: End with the beginning of the assistant's answer.
        **template_vars: More variables for the template, such as `tools`.

    Raises:
        RequestError: There is no template, or it refuses the messages, or these are malformed.
    """
    text = _render(tokenizer, template, messages, add_generation_prompt, template_vars)
    ids = _encode(tokenizer, text)
    bos = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    return ids if ids[:1] == bos else bos + ids


def check_variables(variables: Any) -> dict[str, Any]:
    """Returns the variables that a caller gives to the template, none if it is None.

    Raises:
        RequestError: It is no mapping of names, or a name is taken.
    """
    if variables is None:
        return {}
    if not isinstance(variables, Mapping) or not all(isinstance(n, str) for n in variables):
        raise RequestError(
            f"template_vars: expected a mapping of names but got {variables!r:.80}",
            hint='give a mapping such as {"enable_thinking": False}',
        )
    for taken in ("messages", "template", "tokenizer", "self"):
        if taken in variables:
            raise RequestError(
                f"template_vars: {taken!r} is not a variable that can be set",
                hint="messages are an argument of their own; choose another name for the rest",
            )
    return dict(variables)


def render_chat(
    tokenizer: Tokenizer,
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    **template_vars: Any,
) -> str:
    """Returns the text of a conversation for display; arguments as for `encode_chat`."""
    return plain(_render(tokenizer, template, messages, add_generation_prompt, template_vars))


def _render(
    tokenizer: Tokenizer,
    template: str | None,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    template_vars: Mapping[str, Any],
) -> str:
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise RequestError(
            f"messages: expected a list but got {type(messages).__name__}", hint=_MESSAGES
        )
    if not messages:
        raise RequestError("messages: there are none", hint=_MESSAGES)
    if template is None:
        raise RequestError(
            "the model has no chat template",
            hint=_named(tokenizer)
            or "send one prompt text instead of messages, or give a template",
        )
    if is_marked(template):
        raise RequestError("chat template: contains unassigned Unicode characters", hint=_ASSIGNED)
    variables = {name: _marked(value, name) for name, value in template_vars.items()}
    variables |= tokenizer.special_texts
    variables["messages"] = [_message(m, f"messages[{i}]") for i, m in enumerate(messages)]
    variables["add_generation_prompt"] = add_generation_prompt
    return render(template, variables)


def _named(tokenizer: Tokenizer) -> str | None:
    """What to do if only templates with names exist."""
    names = ", ".join(tokenizer.chat_templates)
    return names and f"choose one of its named templates: {names}"


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(
            f"{where}: expected a mapping but got {type(message).__name__}", hint=_MESSAGES
        )
    role = message.get("role")
    if not isinstance(role, str) or not _NAME.fullmatch(role):
        raise RequestError(
            f"{where}: role: expected a name but got {role!r:.80}",
            hint="give each message a role such as 'user', 'assistant' or 'system'",
        )
    marked: dict[str, Any] = _marked(message, where)
    return {**marked, "role": role}


def _marked(value: Any, where: str, depth: int = 0) -> Any:
    """Returns a copy of plain data with its strings marked."""
    if depth > MAX_DEPTH:
        raise RequestError(f"{where}: nested deeper than {MAX_DEPTH} levels", hint=_PLAIN)
    if isinstance(value, str):
        if is_marked(value):
            raise RequestError(f"{where}: contains unassigned Unicode characters", hint=_ASSIGNED)
        return mark(value)
    if isinstance(value, Mapping):
        return {
            _key(k, where): _marked(v, f"{where}.{k!s:.40}", depth + 1) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_marked(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise RequestError(f"{where}: expected plain data but got {type(value).__name__}", hint=_PLAIN)


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise RequestError(f"{where}: keys must be strings, not {type(key).__name__}", hint=_PLAIN)
    name: str = key if _NAME.fullmatch(key) else _marked(key, where)
    return name


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokenizes a rendered text run by run between the special tokens of its unmarked part."""
    specials = {t.content: (i, t) for i, t in tokenizer.added_tokens.items() if t.special}
    ids: list[int] = []
    start = 0
    data = str.__str__(text)  # patterns see the marked characters
    for match in _pattern(tuple(specials)).finditer(data):
        index, token = specials[match[0]]
        run = data[start : match.start()]
        ids += _run(tokenizer, run.rstrip(_SPACES) if token.lstrip else run)
        ids.append(index)
        start = match.end()
        if token.rstrip:
            start = len(data) - len(data[start:].lstrip(_SPACES))
    return ids + _run(tokenizer, data[start:])


def _run(tokenizer: Tokenizer, run: str) -> list[int]:
    return tokenizer.encode(plain(run), add_special=False) if run else []


@lru_cache(maxsize=8)
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that finds the longest of some texts, nothing if there are none."""
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
