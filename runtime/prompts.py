"""What a caller may give as a prompt, and the errors for everything else."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from moesaic.errors import RequestError

__all__ = ["Prompt", "check_tokens", "is_list_of_prompts"]

Prompt = str | Sequence[int]

_KINDS = "give a text, a list of token ids, or a list of such prompts"


def is_list_of_prompts(prompt: Prompt | Sequence[Prompt]) -> TypeGuard[Sequence[Prompt]]:
    """Whether this is a list of strings or of lists; a flat list of ints is one prompt."""
    return (
        _is_sequence(prompt)
        and not isinstance(prompt, str)
        and any(isinstance(item, str) or _is_sequence(item) for item in prompt)
    )


def check_tokens(tokens: Sequence[Any], vocab: int) -> list[int]:
    """Returns the ids of a prompt that is not text.

    Raises:
        RequestError: They are none, or not all of them are integers from 0 to `vocab` - 1.
    """
    if isinstance(tokens, str) and tokens:
        raise RequestError(
            f"token ids are needed, not the text {tokens!r:.80}",
            hint="encode it first: `runtime.tokenizer.encode(text)`",
        )
    if not _is_sequence(tokens):
        raise RequestError(f"a prompt must be text or token ids, not {tokens!r:.80}", hint=_KINDS)
    if len(tokens) == 0:
        raise RequestError("the prompt is empty", hint="give at least a character or a token id")
    return [_check_token(i, token, vocab) for i, token in enumerate(tokens)]


def _check_token(index: int, token: Any, vocab: int) -> int:
    if not isinstance(token, int | np.integer) or isinstance(token, bool):
        raise RequestError(
            f"token {index} of the prompt must be an integer, not {token!r:.80}", hint=_KINDS
        )
    if not 0 <= token < vocab:
        raise RequestError(
            f"token {index} of the prompt is {token!s:.40}, the vocabulary has {vocab}",
            hint=f"give ids from 0 to {vocab - 1}, such as this model's tokenizer makes",
        )
    return int(token)


def _is_sequence(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview)
