"""Byte-level BPE written for reading: a judge for vocabularies whose tokenizer.json is not at hand.

Needs the `regex` package, which moesaic does not.
"""

import unicodedata
from itertools import pairwise

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
CASED = r"[\p{Lu}\p{Ll}\p{Lt}&&[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}]]"
PATTERNS = {
    "olmo": [GPT2],
    "refact": [r"\p{N}", GPT2],
    "deepseek-llm": [
        r"[\r\n]",
        rf"\s?{CASED}+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        r"[一-龥ࠀ-一가-퟿]+",
        r"\p{N}",
    ],
}
COMPOSED = {"olmo"}  # text is put in normal form C
CONTROL, USER_DEFINED = 3, 4


class PlainBpe:
    """A tokenizer from the metadata of a model file.

    Args:
        keys: What `tokenizer.ggml.tokens`, `token_type`, `merges` and `pre` hold, by full name.
    """

    def __init__(self, keys: dict) -> None:
        def get(key: str):
            return keys[f"tokenizer.ggml.{key}"]

        self.pre = get("pre")
        self.ids = {token: i for i, token in enumerate(get("tokens"))}
        self.ranks = {tuple(m.split(" ")): rank for rank, m in enumerate(get("merges"))}
        kinds = dict(zip(get("tokens"), get("token_type"), strict=True))
        self.always = {token for token, kind in kinds.items() if kind == USER_DEFINED}
        self.special = {token for token, kind in kinds.items() if kind == CONTROL}
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = iter(range(256, 512))
        self.letters = [chr(b) if b in plain else chr(next(rest)) for b in range(256)]

    def encode(self, text: str, *, special_as_text: bool = False) -> list[int]:
        """Returns the ids of a text.

        Control tokens in it are parsed unless told otherwise, user-defined ones always.
        """
        whole = self.always | (set() if special_as_text else self.special)
        if not whole:
            return self._encode_plain(text)
        names = map(regex.escape, sorted(whole, key=len, reverse=True))
        ids = []
        for piece in regex.split(f"({'|'.join(names)})", text):
            ids += [self.ids[piece]] if piece in whole else self._encode_plain(piece)
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        if self.pre in COMPOSED:
            text = unicodedata.normalize("NFC", text)
        pieces = [text] if text else []
        for pattern in PATTERNS[self.pre]:
            pieces = [part for piece in pieces for part in _cut(pattern, piece)]
        tokens = (token for piece in pieces for token in self._merge(piece))
        return [self.ids[token] for token in tokens if token in self.ids]  # some lack a byte

    def _merge(self, piece: str) -> list[str]:
        tokens = [self.letters[b] for b in piece.encode()]
        while len(tokens) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(tokens)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == len(self.ranks):
                break
            tokens[best : best + 2] = ["".join(tokens[best : best + 2])]
        return tokens


def _cut(pattern: str, text: str) -> list[str]:
    """Returns the matches of a pattern and what lies between them, in order."""
    parts, end = [], 0
    for match in regex.finditer(pattern, text, regex.VERSION1):
        parts += [text[end : match.start()], match[0]]
        end = match.end()
    return [part for part in (*parts, text[end:]) if part]
