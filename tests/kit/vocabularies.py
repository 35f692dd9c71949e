"""Small tokenizers for tests: the cut-down originals, and one of characters made on the spot."""

import json
from pathlib import Path

from kit import tiny_gguf as tiny

from moesaic.partitioner.gguf import Metadata, TokenizerFiles, convert_tokenizer, read_gguf

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizers"
NAMES = ("deepseek-llm", "gemma3", "gptoss", "llama2", "llama3", "olmo", "qwen3", "refact")


def golden(name: str) -> dict:
    """A cut-down original: its GGUF metadata and the ids of `texts()`."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def texts() -> list[str]:
    return json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))


def metadata(folder: Path, keys: dict) -> Metadata:
    """Metadata that went through a file."""
    return read_gguf(tiny.write(folder / "vocabulary.gguf", keys)).metadata


def convert(folder: Path, keys: dict) -> TokenizerFiles:
    return convert_tokenizer(metadata(folder, keys))


def plan_folder(folder: Path, name: str, **more: object) -> Path:
    """A folder with the tokenizer files of a cut-down original, some keys added or replaced."""
    keys = golden(name)["metadata"] | {f"tokenizer.{k}": v for k, v in more.items()}
    convert(folder, keys).write(folder)
    return folder


def printable() -> list[str]:
    """The 256 characters by which byte-level vocabularies write bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in plain] + [chr(0x100 + i) for i in range(256 - len(plain))]


def byte_keys(*added: tuple[str, int], pre: str | None = "gpt-2", **more: object) -> dict:
    """Metadata of a byte-level vocabulary without merges but one, then `added` (text, kind)."""
    base = [*printable(), "Ġa"]
    keys = {
        "model": "gpt2",
        "tokens": base + [text for text, _ in added],
        "token_type": [1] * len(base) + [kind for _, kind in added],
        "merges": ["Ġ a"],
        **({"pre": pre} if pre else {}),
        **more,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def spm_keys(*pieces: tuple[str, float, int], **more: object) -> dict:
    """Metadata of a SentencePiece vocabulary: <unk> <s> </s>, 256 bytes, then `pieces`."""
    rows = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    rows += [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    rows += pieces
    keys = {
        "model": "llama",
        "tokens": [text for text, _, _ in rows],
        "scores": [score for _, score, _ in rows],
        "token_type": [kind for _, _, kind in rows],
        **more,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
