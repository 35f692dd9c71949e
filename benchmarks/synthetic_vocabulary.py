"""Made-up tokenizers of any size: text works, words are not those of a real model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from string import ascii_lowercase as letters

from gguf import GGUFWriter, TokenType


def _byte_alphabet() -> list[str]:
    """The printable stand-in of every byte in byte-level BPE, in byte order."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b if b in printable else next(others)) for b in range(256)]


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs whose parts exist earlier and whose joins are all different: 928 018 of them."""
    pairs = ["".join(p) for p in product(letters, repeat=2)]
    yield from product(letters, repeat=2)
    yield from (("Ġ", a) for a in letters)
    yield from (("Ġ" + p[0], p[1]) for p in pairs)
    yield from product(pairs, letters)
    yield from (("Ġ" + p[0] + p[1], a) for p in pairs for a in letters)
    yield from ((a, b) for a, b in product(pairs, pairs))
    yield from (("Ġ" + a, b) for a, b in product(pairs, pairs))


def byte_level(w: GGUFWriter, vocab: int, pre: str, plain: int, specials: dict[int, str]) -> None:
    """Writes a byte-level BPE tokenizer.

    Args:
        w: The file being written.
        vocab: Entries in all; ids without another meaning become unused ``[PADn]``.
        pre: Name of the pre-tokenizer.
        plain: How many ids from 0 are bytes and merges.
        specials: Text of control tokens by id, ``plain`` or greater.
    """
    merges = list(islice(_merges(), plain - 256))
    tokens = _byte_alphabet() + [a + b for a, b in merges]
    types = [TokenType.NORMAL] * len(tokens)
    for i in range(len(tokens), vocab):
        tokens.append(specials.get(i, f"[PAD{i}]"))
        types.append(TokenType.CONTROL if i in specials else TokenType.UNUSED)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([f"{a} {b}" for a, b in merges])


def sentencepiece(w: GGUFWriter, vocab: int) -> None:
    """Writes an SPM tokenizer of ``vocab`` entries: Llama's specials, bytes, scored pieces."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    pieces = ["▁", *letters, *letters.upper(), *"0123456789.,:;!?'\"-()"]
    pieces += [(a + b).replace("Ġ", "▁") for a, b in islice(_merges(), vocab)]
    pieces = pieces[: vocab - len(tokens)]
    scores = [0.0] * len(tokens) + [-float(i) for i in range(len(pieces))]
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens + pieces)
    w.add_token_scores(scores)
    w.add_token_types(types + [TokenType.NORMAL] * len(pieces))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)
