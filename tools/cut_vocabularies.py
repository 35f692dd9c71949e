"""Cuts tokenizers down to small ones and records the ids that the `tokenizers` library gives.

    python tools/cut_vocabularies.py OUTPUT NAME=FOLDER ...

The folders hold `tokenizer.json` and `tokenizer_config.json`. A cut-down tokenizer keeps the
original's settings, the first merges and what these need. For each, `OUTPUT/NAME.json` holds the
GGUF metadata that stands for it and the ids of the texts in `OUTPUT/texts.json`.

NAME=FILE.gguf takes a vocabulary without its original; the ids are then those of `plain_bpe`, which
needs the `regex` package.
"""

import json
import sys
from pathlib import Path

import gguf
from compare_tokenizers import PRE, gguf_keys
from hard_texts import hard_texts
from tokenizers import Tokenizer

MERGES = 1200
TOKEN_CHARS = 10
TEXT_CHARS = 100
ADDED = 12
SPECIALS = ["<|im_end|>", "<|end|>", "<|eot_id|>", "</s>", "<bos>", "<end_of_turn>", "<tool_call>"]


def cut(original: dict) -> dict:
    """Returns a `tokenizer.json` with the first merges of another, ids renumbered in order."""
    model = original["model"]
    pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
    first = [(a, b) for a, b in pairs if len(a + b) <= TOKEN_CHARS][:MERGES]
    made = {a + b for a, b in first}
    kept = made | {c for token in made for c in token}
    added = original["added_tokens"]
    wanted = [t for i, t in enumerate(added) if i < ADDED or t["content"] in {*made, *SPECIALS}]
    texts = {t["content"] for t in wanted}
    base = {t for t in model["vocab"] if len(t) == 1 and not model["byte_fallback"]}
    base |= {t for t in model["vocab"] if t.startswith("<0x") or t == model["unk_token"]}
    words = sorted((i, t) for t, i in model["vocab"].items() if t in kept | base | texts)
    vocab = {t: new for new, (_, t) in enumerate(words)}
    merges = [[a, b] for a, b in first if a in vocab and b in vocab and a + b in vocab]
    tail = sorted((t for t in wanted if t["content"] not in vocab), key=lambda t: t["id"])
    ids = vocab | {t["content"]: len(vocab) + i for i, t in enumerate(tail)}
    template = original["post_processor"]
    for name, special in template.get("special_tokens", {}).items():
        special["ids"] = [ids[name]]
    return {
        **original,
        "model": {**model, "vocab": vocab, "merges": merges},
        "added_tokens": sorted(
            ({**t, "id": ids[t["content"]]} for t in wanted), key=lambda t: t["id"]
        ),
    }


def main(output: Path, *originals: str) -> None:
    """Writes the files."""
    texts = [t for t in hard_texts(SPECIALS, count=60, seed=5) if len(t) <= TEXT_CHARS]
    _write(output / "texts.json", texts)
    for name, folder in (item.split("=", 1) for item in originals):
        if folder.endswith(".gguf"):
            _cut_gguf(output, name, Path(folder), texts)
            continue
        original = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        config = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
        small = cut(original)
        judge = Tokenizer.from_str(json.dumps(small))
        record: dict[str, object] = {"metadata": gguf_keys(small, config, PRE.get(name))}
        for key, as_text in (("ids", False), ("ids_special_as_text", True)):
            judge.encode_special_tokens = as_text
            record[key] = [judge.encode(t, add_special_tokens=False).ids for t in texts]
        _write(output / f"{name}.json", record)
        print(name, len(small["model"]["vocab"]), "tokens", len(small["added_tokens"]), "added")


def _cut_gguf(output: Path, name: str, path: Path, texts: list[str]) -> None:
    from plain_bpe import PlainBpe  # its package is not everywhere

    fields = gguf.GGUFReader(path).fields
    tokens, kinds, merges = (
        fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges")
    )
    control, user_defined = int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)
    added = [i for i, kind in enumerate(kinds) if kind in (control, user_defined)]
    original = {
        "model": {
            "vocab": {token: i for i, token in enumerate(tokens) if i not in added},
            "merges": merges,
            "byte_fallback": False,
            "unk_token": None,
        },
        "added_tokens": [
            {"id": i, "content": tokens[i], "special": kinds[i] == control} for i in added
        ],
        "post_processor": {},
    }
    roles = {f"tokenizer.ggml.{role}_token_id": f"{role}_token" for role in ("bos", "eos")}
    config = {role: tokens[fields[key].contents()] for key, role in roles.items() if key in fields}
    keys = gguf_keys(cut(original), config, name)
    judge = PlainBpe(keys)
    record: dict[str, object] = {"metadata": keys}
    for key, as_text in (("ids", False), ("ids_special_as_text", True)):
        record[key] = [judge.encode(text, special_as_text=as_text) for text in texts]
    _write(output / f"{name}.json", record)


def _write(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
