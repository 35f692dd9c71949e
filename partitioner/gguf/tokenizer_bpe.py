"""Tokenizers of GGUF files as `tokenizer.json`: the BPE model and what surrounds it.

Two shapes cover the models here. Byte-level BPE (`gpt2`) cuts text with regular expressions and
merges bytes written as printable characters. The SentencePiece shape (`llama`, `gemma4`) writes
spaces as `▁`, merges characters and spells unknown ones in byte tokens.
"""

from typing import Any

from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.partitioner.gguf.pretokenizers import PreTokenizer
from moesaic.partitioner.gguf.vocabulary import Kind, Vocabulary

MAX_VOCABULARY_CHARS = 1 << 24

_ADDED = (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
_UNMERGED = (Kind.UNKNOWN, Kind.CONTROL, Kind.BYTE, Kind.UNUSED)
# Phi-3 and Phi-3.5 swallow the white space after their special tokens, which a GGUF does not say.
_PHI3_MARK = "<|placeholder1|>"
_PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")

Merges = list[tuple[str, str]]


def byte_level(vocab: Vocabulary, pre: PreTokenizer, metadata: Metadata) -> dict[str, Any]:
    """Returns the parts of a byte-level tokenizer: model, normalizer, pre-tokenizer, decoder."""
    merges = _read_merges(vocab, metadata)
    if merges is None:  # a tiktoken vocabulary: ids are ranks
        merges = merges_by_score(vocab, [-float(i) for i in range(len(vocab.tokens))], metadata)
    cut = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in pre.patterns
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*cut, level | {"use_regex": False}],
        },
        "decoder": level | {"use_regex": True},
        "model": _model(merges, ignore_merges=pre.ignore_merges),
    }


def sentencepiece(vocab: Vocabulary, metadata: Metadata, prefix: bool) -> dict[str, Any]:
    """Returns the parts of a tokenizer of the SentencePiece shape.

    Args:
        vocab: The vocabulary.
        metadata: All the metadata of the file.
        prefix: Whether a space is put before a text if the file does not say.
    """
    merges = _read_merges(vocab, metadata)
    if merges is None:
        # User-defined pieces come before all others; converters overwrite their score.
        scores = [
            float("inf") if kind == Kind.USER_DEFINED else score
            for kind, score in zip(vocab.kinds, vocab.scores or (), strict=False)
        ]
        if not scores:
            metadata.fail("tokenizer.ggml.scores", "is missing")
        merges = merges_by_score(vocab, scores, metadata)
    prefix = metadata.bool("tokenizer.ggml.add_space_prefix", prefix)
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    unescape = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, escape]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [unescape, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": _model(merges, byte_fallback=True, fuse_unk=True, unk_token=vocab.text("unknown")),
    }


def assemble(parts: dict[str, Any], vocab: Vocabulary, bos: bool, eos: bool) -> dict[str, Any]:
    """Returns the whole `tokenizer.json` from the parts.

    Args:
        parts: What `byte_level` or `sentencepiece` returned; its model gets the vocabulary here.
        vocab: The vocabulary, spelled as the model spells it.
        bos: Whether an encoded text begins with the BOS token.
        eos: Whether it ends with the EOS token.
    """
    first, end = _appended(vocab, parts["model"]["merges"])
    parts["model"]["vocab"] = {token: i for i, token in enumerate(vocab.tokens[:first])}
    added = [_added_token(vocab, i) for i in vocab.of_kind(*_ADDED) if i < end]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": parts["normalizer"],
        "pre_tokenizer": parts["pre_tokenizer"],
        "post_processor": _template(vocab, bos, eos),
        "decoder": parts["decoder"],
        "model": parts["model"],
    }


def merges_by_score(vocab: Vocabulary, scores: list[float], metadata: Metadata) -> Merges:
    """Returns merges that choose as a vocabulary with scores does.

    Every way to put a token together from two others is a merge, the highest score first. Tokens
    that text must never become (control, byte, unused) are not put together.
    """
    chars = sum(map(len, vocab.tokens))
    if chars > MAX_VOCABULARY_CHARS:
        metadata.fail(
            "tokenizer.ggml.tokens", f"{chars} characters, more than {MAX_VOCABULARY_CHARS}"
        )
    ids = {token: i for i, token in enumerate(vocab.tokens)}
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, score, kind in zip(vocab.tokens, scores, vocab.kinds, strict=False):
        if kind in _UNMERGED:
            continue
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [(a, b) for a, b in pairs if a in ids and b in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        ranked += [(-score, -len(a), -len(b), a, b) for a, b in pairs]
    ranked.sort(key=lambda entry: entry[:3])  # stable: then in order of ids
    return [(a, b) for *_, a, b in ranked]


def _read_merges(vocab: Vocabulary, metadata: Metadata) -> Merges | None:
    """Returns the file's merges that the vocabulary can express, or None if it has none."""
    lines = metadata.array("tokenizer.ggml.merges", str, None)
    if not lines:
        return None
    known = {t for t, kind in zip(vocab.tokens, vocab.kinds, strict=True) if kind not in _UNMERGED}
    whole = set(vocab.tokens)
    merges: dict[tuple[str, str], None] = {}
    for index, line in enumerate(lines):
        cut = line.find(" ", 1)
        if cut < 0:
            metadata.fail("tokenizer.ggml.merges", f"entry {index}, {line[:80]!r}, has no space")
        pair = line[:cut], line[cut + 1 :]
        if pair[0] in whole and pair[1] in whole and line[:cut] + line[cut + 1 :] in known:
            merges[pair] = None
    return list(merges)


def _model(merges: Merges, **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": {},
        "merges": merges,
    }


def _appended(vocab: Vocabulary, merges: Merges) -> tuple[int, int]:
    """Returns the range of ids that are left out of the model and only appended to it.

    They are the added tokens at the end that no merge needs; unused ones after them are left out
    altogether. Ids of appended tokens follow from their order, so those among others stay.
    """
    end = len(vocab.tokens)
    while end and vocab.kinds[end - 1] == Kind.UNUSED:
        end -= 1
    first = end
    while first and vocab.kinds[first - 1] in _ADDED:
        first -= 1
    last = {vocab.tokens[i]: i for i in range(first, end)}
    needed = [last[t] for a, b in merges for t in (a, b, a + b) if t in last]
    return max(needed, default=first - 1) + 1, end


def _added_token(vocab: Vocabulary, index: int) -> dict[str, Any]:
    text = vocab.tokens[index]
    return {
        "id": index,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": _PHI3_MARK in vocab.tokens[-100:] and text not in _PHI3_PLAIN,
        "normalized": False,
        "special": vocab.kinds[index] != Kind.USER_DEFINED,
    }


def _template(vocab: Vocabulary, bos: bool, eos: bool) -> dict[str, Any] | None:
    """Returns the post-processor that puts BOS before and EOS after a text."""
    before = [vocab.roles["bos"]] if bos and "bos" in vocab.roles else []
    after = [vocab.roles["eos"]] if eos and "eos" in vocab.roles else []
    if not before and not after:
        return None

    def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
        def special(i: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": vocab.tokens[i], "type_id": type_id}}

        middle = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [*map(special, before), middle, *map(special, after)]

    specials = {
        vocab.tokens[i]: {"id": vocab.tokens[i], "ids": [i], "tokens": [vocab.tokens[i]]}
        for i in before + after
    }
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": specials,
    }
