"""Compares our converted tokenizers with the originals, id by id.

    python tools/compare_tokenizers.py [--original NAME=FOLDER ...] [--ggml FOLDER]

An original is a folder with `tokenizer.json`. It is written as a GGUF in the way the public
converter does, converted by us, and both encode many hard texts, with and without parsing special
tokens. A ggml folder holds `ggml-vocab-*.gguf` with `.inp` (texts) and `.out` (ids) beside them.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import gguf
from hard_texts import hard_texts
from tokenizers import Tokenizer

from moesaic.errors import ModelError
from moesaic.partitioner.gguf import read_gguf
from moesaic.partitioner.gguf.tokenizer import convert_tokenizer

PRE = {
    "gptoss": "gpt-4o",
    "llama3": "llama-bpe",
    "qwen1_5": "qwen2",
    "qwen2_5": "qwen2",
    "qwen3": "qwen2",
}
PADDING = 7
TESTS = "\n__ggml_vocab_test__\n"


def gguf_keys(original: dict, config: dict, pre: str | None) -> dict[str, object]:
    """Returns the metadata that stands for `tokenizer.json` and `tokenizer_config.json`."""
    model = original["model"]
    spm = model["byte_fallback"]
    words = {i: t for t, i in model["vocab"].items()}
    added = {t["id"]: t for t in original["added_tokens"]}
    size = max([*words, *added]) + 1 + PADDING  # matrices are often larger than vocabularies
    pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
    ranks: dict[str, int] = {}  # the merges come in order of their result's score
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    tokens, scores, kinds = [], [], []
    for i in range(size):
        token = added[i]["content"] if i in added else words.get(i, f"[PAD{i}]")
        score, kind = -float(ranks.get(token, 0)), gguf.TokenType.NORMAL
        if i in added:
            special = added[i]["special"]
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
            token = token if special else token.replace("▁", " ")
            score = -1000.0
        elif i not in words:
            kind = gguf.TokenType.UNUSED
        elif spm and len(token) == 6 and token.startswith("<0x"):
            kind = gguf.TokenType.BYTE
        tokens.append(token)
        scores.append(score)
        kinds.append(int(kind))
    keys: dict[str, object] = {"model": "llama" if spm else "gpt2", "tokens": tokens}
    if pre:
        keys["pre"] = pre
    if spm:
        unknown = tokens.index("<unk>")
        kinds[unknown] = int(gguf.TokenType.UNKNOWN)
        keys |= {"scores": scores, "unknown_token_id": unknown, "add_bos_token": True}
        keys["add_space_prefix"] = "Prepend" in json.dumps(original["normalizer"])
    else:
        keys["merges"] = [" ".join(pair) for pair in pairs]
    keys["token_type"] = kinds
    for role in ("bos", "eos"):
        if config.get(f"{role}_token") in tokens:
            keys[f"{role}_token_id"] = tokens.index(config[f"{role}_token"])
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def write_gguf(keys: dict[str, object], path: Path) -> None:
    """Writes metadata as a GGUF without tensors."""
    adders = {bool: "add_bool", int: "add_uint32", str: "add_string", list: "add_array"}
    writer = gguf.GGUFWriter(path, "test")
    for key, value in keys.items():
        getattr(writer, adders[type(value)])(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def compare_original(name: str, folder: Path) -> bool:
    """Prints how our ids for an original compare with its own."""
    original = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "vocab.gguf"
        write_gguf(gguf_keys(original, config, PRE.get(name)), path)
        files = convert_tokenizer(read_gguf(path).metadata)
    theirs = Tokenizer.from_str(json.dumps(original))
    ours = Tokenizer.from_str(json.dumps(files.tokenizer_json))
    special = [t["content"] for t in original["added_tokens"]]
    texts = hard_texts(special[:3] + special[-12:], count=6000)
    tokens, bad = 0, {}
    for mode in ("special tokens parsed", "special tokens as text"):
        theirs.encode_special_tokens = ours.encode_special_tokens = mode != "special tokens parsed"
        expected = theirs.encode_batch_fast(texts, add_special_tokens=False)
        got = ours.encode_batch_fast(texts, add_special_tokens=False)
        tokens += sum(len(e.ids) for e in expected)
        bad[mode] = [t for t, a, b in zip(texts, expected, got, strict=True) if a.ids != b.ids]
        controls = {t["id"] for t in files.tokenizer_json["added_tokens"] if t["special"]}
        if ours.encode_special_tokens:
            forged = [t for t, g in zip(texts, got, strict=True) if controls & set(g.ids)]
            bad["forged"] = forged
    ids = [e.ids for e in expected]
    bad["decode"] = [
        t
        for t, a, b in zip(texts, theirs.decode_batch(ids), ours.decode_batch(ids), strict=True)
        if a != b
    ]
    merges = [
        tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m)
        for m in original["model"]["merges"]
    ]
    same = set(merges) == set(map(tuple, files.tokenizer_json["model"]["merges"]))
    print(f"{name}: {len(texts)} texts, {tokens} tokens, same merges: {same}")
    for what, failed in bad.items():
        print(f"  {what}: {len(failed)} differ{'' if not failed else ' ' + repr(failed[:3])}")
    return not any(bad.values())


def compare_ggml(path: Path) -> bool:
    """Prints how our ids for a ggml vocabulary compare with its `.out` file."""
    name = path.stem.removeprefix("ggml-vocab-")
    try:
        files = convert_tokenizer(read_gguf(path).metadata)
    except ModelError as error:
        print(f"ggml {name}: not converted: {str(error).split(': ', 1)[1]}")
        return True
    inputs, outputs = Path(f"{path}.inp"), Path(f"{path}.out")
    if not inputs.exists():
        print(f"ggml {name}: converted, nothing to compare with")
        return True
    ours = Tokenizer.from_str(json.dumps(files.tokenizer_json))
    ours.encode_special_tokens = True
    texts = inputs.read_bytes().decode().split(TESTS)
    lines = outputs.read_text().split("\n")
    wrong = []
    for text, line in zip(texts, lines, strict=False):
        expected = [int(word) for word in line.split()]
        got = ours.encode(text, add_special_tokens=False).ids
        if got != expected:
            wrong.append((text, expected, got))
    print(f"ggml {name}: {len(texts)} texts, {len(wrong)} differ")
    for text, expected, got in wrong[:6]:
        print(f"  {text[:90]!r}\n    expected {expected[:24]}\n    got      {got[:24]}")
    return not wrong


def main() -> int:
    """Runs the comparisons named on the command line; 1 if any id differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--original", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--ggml", type=Path)
    arguments = parser.parse_args()
    good = [
        compare_original(name, Path(folder))
        for name, folder in (item.split("=", 1) for item in arguments.original)
    ]
    if arguments.ggml:
        good += [compare_ggml(path) for path in sorted(arguments.ggml.glob("ggml-vocab-*.gguf"))]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
