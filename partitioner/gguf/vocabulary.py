"""The vocabulary of a GGUF file: its tokens, their kinds, and which of them have a role."""

import re
from dataclasses import dataclass
from enum import IntEnum

from moesaic.partitioner.gguf.metadata import Metadata

MAX_TOKEN_CHARS = 4096

# Texts by which chat models end a turn, when the token is of kind CONTROL.
_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|> <end_of_turn> "
    "<|endoftext|> </s> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> "
    "<end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~["
)
# Those of them that are never anything else: control tokens even where the file forgets to say
# so. (`</s>`, for one, is a plain HTML tag to Gemma.)
_CONTROLS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <end_of_turn> <|endoftext|> <|eom_id|> "
    "<|end_of_text|> <｜end▁of▁sentence｜>"
)
_END_TEXTS = frozenset(_ENDS.split())
_CONTROL_TEXTS = frozenset(_CONTROLS.split())
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_LOOKS_SPECIAL = re.compile(r"<.+>|\[.+\]")
_STOPS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ROLES = (*_STOPS, "bos", "unknown", "padding")


class Kind(IntEnum):
    """What a token is for; the numbers are those of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked vocabulary.

    Attributes:
        tokens: Text of every token as the file spells it; unique, not empty.
        kinds: Kind of every token.
        scores: Score of every token, or None.
        roles: Ids by role, such as `bos`, `eos` or `padding`; only roles that have a token.
    """

    tokens: list[str]
    kinds: list[Kind]
    scores: list[float] | None
    roles: dict[str, int]

    def text(self, role: str) -> str | None:
        """Returns the text of the token with that role, or None."""
        return self.tokens[self.roles[role]] if role in self.roles else None

    def of_kind(self, *kinds: Kind) -> list[int]:
        """Returns the ids of the tokens of some kinds, ascending."""
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]

    def stop_ids(self) -> list[int]:
        """Returns the ids that end generation: `eos` first, then the other ends of a turn."""
        stops = [self.roles[role] for role in _STOPS if role in self.roles]
        controls = {self.tokens[i]: i for i in self.of_kind(Kind.CONTROL)}
        stops += [i for text, i in controls.items() if text in _END_TEXTS]
        # Where other tokens end a turn, `<|end|>` only ends a message inside of it, and where tools
        # answer inside a turn `</s>` is markup.
        if {"<|return|>", "<|call|>"} <= controls.keys() or {
            "<|calls|>",
            "<|flush|>",
        } <= controls.keys():
            stops = [i for i in stops if self.tokens[i] != "<|end|>"]
        if "<|tool_response>" in controls:
            stops = [i for i in stops if self.tokens[i] != "</s>"]
        return list(dict.fromkeys(stops))


def read_vocabulary(metadata: Metadata, default_roles: dict[str, int]) -> Vocabulary:
    """Reads `tokenizer.ggml.*`.

    Args:
        metadata: All the metadata of the file.
        default_roles: Ids of roles whose keys are missing; used if the token looks special.
    """
    ggml = metadata.scoped("tokenizer.ggml")
    tokens = ggml.array("tokens", str)
    if not tokens:
        ggml.fail("tokens", "the vocabulary is empty")
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN_CHARS:
        ggml.fail("tokens", f"a token of {len(longest)} characters, more than {MAX_TOKEN_CHARS}")
    tokens = _unique(tokens)
    roles = _roles(ggml, tokens, default_roles)
    scores = ggml.array("scores", float, None)
    if scores is not None and len(scores) < len(tokens):
        ggml.fail("scores", f"{len(scores)} scores for {len(tokens)} tokens")
    return Vocabulary(tokens, _kinds(ggml, tokens, roles), scores, roles)


def _unique(tokens: list[str]) -> list[str]:
    """Renames empty and repeated tokens, so that every id has a name; the first one keeps it."""
    seen = {""}
    for index, token in enumerate(tokens):
        if token in seen:
            tokens[index] = f"[UNNAMED_{index}]"
        seen.add(tokens[index])
    if len(seen) != len(tokens) + 1:  # a file made to collide with these names
        tokens = [f"[{index}]{token}" for index, token in enumerate(tokens)]
    return tokens


def _roles(ggml: Metadata, tokens: list[str], defaults: dict[str, int]) -> dict[str, int]:
    roles = {}
    for role in _ROLES:
        index = ggml.int(f"{role}_token_id", None)
        if index is None:
            index = defaults.get(role, -1)
            if 0 <= index < len(tokens) and not _LOOKS_SPECIAL.fullmatch(tokens[index]):
                continue
        if 0 <= index < len(tokens):  # converters write -1 for "none"
            roles[role] = index
    return roles


def _kinds(ggml: Metadata, tokens: list[str], roles: dict[str, int]) -> list[Kind]:
    numbers = ggml.array("token_type", int, None)
    if numbers is None:
        numbers = [Kind.BYTE if _BYTE.fullmatch(t) else Kind.NORMAL for t in tokens]
    if len(numbers) < len(tokens):
        ggml.fail("token_type", f"{len(numbers)} kinds for {len(tokens)} tokens")
    table = {int(kind): kind for kind in Kind}
    kinds = [table.get(n, Kind.NORMAL) for n in numbers[: len(tokens)]]
    roles_by_id = set(roles.values())
    for index, token in enumerate(tokens):
        if kinds[index] not in (Kind.NORMAL, Kind.USER_DEFINED):
            continue
        special_role = index in roles_by_id and _LOOKS_SPECIAL.fullmatch(token)
        if token in _CONTROL_TEXTS or special_role:
            kinds[index] = Kind.CONTROL
    return kinds
