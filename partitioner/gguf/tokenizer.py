"""Converts the tokenizer of a GGUF file to Hugging Face's files."""

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.partitioner.gguf.pretokenizers import PreTokenizer, pre_tokenizer
from moesaic.partitioner.gguf.tokenizer_bpe import assemble, byte_level, sentencepiece
from moesaic.partitioner.gguf.vocabulary import Kind, Vocabulary, read_vocabulary

_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer's share of a plan directory.

    Attributes:
        tokenizer_json: Content of `tokenizer.json`.
        tokenizer_config: Content of `tokenizer_config.json`.
        chat_template: Content of `chat_template.jinja`, or None: no such file.
        named_templates: Chat templates besides that one, by name, as Hugging Face keeps them in
            `additional_chat_templates`.
        generation_config: Content of `generation_config.json`: `eos_token_id` is the list of the
            ids that end generation, `suppress_tokens` the ids that must never be sampled.
    """

    tokenizer_json: dict[str, Any]
    tokenizer_config: dict[str, Any]
    chat_template: str | None
    named_templates: dict[str, str]
    generation_config: dict[str, Any]

    @cached_property
    def tokenizer_text(self) -> str:
        """Text of `tokenizer.json`, made once: large vocabularies take a second."""
        return json.dumps(self.tokenizer_json, ensure_ascii=False, separators=(",", ":"))

    def write(self, folder: Path) -> None:
        """Writes the files into an existing folder."""
        (folder / "tokenizer.json").write_text(self.tokenizer_text, encoding="utf-8")
        for name in ("tokenizer_config", "generation_config"):
            text = json.dumps(getattr(self, name), ensure_ascii=False, indent=2) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
        if self.chat_template is not None:
            path = folder / "chat_template.jinja"
            path.write_bytes(self.chat_template.encode())
        if self.named_templates:
            more = folder / "additional_chat_templates"
            more.mkdir()
            for name, template in self.named_templates.items():
                (more / f"{name}.jinja").write_bytes(template.encode())


def convert_tokenizer(metadata: Metadata) -> TokenizerFiles:
    """Converts `tokenizer.*` of a file; ids stay as they are.

    Args:
        metadata: All the metadata of the file.

    Raises:
        ModelError: The tokenizer is malformed or of a kind that is not supported.
    """
    model = metadata.str("tokenizer.ggml.model")
    if model == "gpt2":
        pre = pre_tokenizer(metadata)
        defaults = {} if pre.no_bos else {"bos": 11, "eos": 11}
        vocab = read_vocabulary(metadata, defaults)
        parts = byte_level(vocab, pre, metadata)
    elif model in ("llama", "gemma4"):
        pre = PreTokenizer((), add_bos=True)
        vocab = _escaped(read_vocabulary(metadata, {"bos": 1, "eos": 2, "unknown": 0}))
        parts = sentencepiece(vocab, metadata, model == "llama")
    else:
        metadata.fail(
            "tokenizer.ggml.model",
            f"tokenizer {model[:80]!r} is not supported",
            hint="supported are gpt2, llama and gemma4",
        )
    bos = metadata.bool("tokenizer.ggml.add_bos_token", pre.add_bos) and "bos" in vocab.roles
    eos = metadata.bool("tokenizer.ggml.add_eos_token", False) and "eos" in vocab.roles
    files = TokenizerFiles(
        assemble(parts, vocab, bos, eos),
        _config(metadata, vocab, bos, eos),
        metadata.str("tokenizer.chat_template", None),
        _named_templates(metadata),
        _generation(metadata, vocab),
    )
    _check(metadata, files)
    return files


def _named_templates(metadata: Metadata) -> dict[str, str]:
    """The templates beside the default one, such as `tool_use`; names become file names."""
    prefix = "tokenizer.chat_template."
    keys = [key for key in metadata if key.startswith(prefix)]
    for key in keys:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key.removeprefix(prefix)):
            metadata.fail(
                key,
                "expected a name of letters, digits, - and _",
                hint="rename the chat template in the model file",
            )
    return {key.removeprefix(prefix): metadata.str(key) for key in keys}


def _escaped(vocab: Vocabulary) -> Vocabulary:
    """Spells spaces in user-defined pieces as `▁` again; converters write them as spaces."""
    tokens, taken = list(vocab.tokens), set(vocab.tokens)
    for index in vocab.of_kind(Kind.USER_DEFINED):
        text = tokens[index].replace(" ", "▁")
        if text not in taken:
            tokens[index] = text
            taken.add(text)
    return replace(vocab, tokens=tokens)


def _check(metadata: Metadata, files: TokenizerFiles) -> None:
    """Loads what will be written: added tokens must get the ids they have in the file."""
    try:
        loaded = Tokenizer.from_str(files.tokenizer_text)
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(
            f"{metadata.path}: tokenizer.ggml: cannot be expressed as tokenizer.json: {error}",
            hint="the vocabulary, the merges or the special tokens contradict each other",
        ) from error
    for token in files.tokenizer_json["added_tokens"]:
        if loaded.token_to_id(token["content"]) != token["id"]:
            metadata.fail(
                "tokenizer.ggml.tokens", f"token {token['id']}, {token['content'][:80]!r}, moved"
            )


def _config(metadata: Metadata, vocab: Vocabulary, bos: bool, eos: bool) -> dict[str, Any]:
    architecture = metadata.str("general.architecture", "")
    context = metadata.int(f"{architecture}.context_length", None)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bos,
        "add_eos_token": eos,
        "bos_token": vocab.text("bos"),
        "eos_token": vocab.text("eos"),
        "pad_token": vocab.text("padding"),
        "unk_token": vocab.text("unknown"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    return {key: value for key, value in config.items() if value is not None}


def _generation(metadata: Metadata, vocab: Vocabulary) -> dict[str, Any]:
    suppressed = set(metadata.array("tokenizer.ggml.suppress_tokens", int, []))
    suppressed |= set(vocab.of_kind(Kind.UNUSED))
    config: dict[str, Any] = {
        "bos_token_id": vocab.roles.get("bos"),
        "eos_token_id": vocab.stop_ids() or None,
        "pad_token_id": vocab.roles.get("padding"),
        "suppress_tokens": sorted(i for i in suppressed if 0 <= i < len(vocab.tokens)) or None,
    }
    sampling = metadata.scoped("general.sampling")
    for key, name in _SAMPLING.items():
        config[name] = sampling.int(key, None) if key == "top_k" else sampling.f32(key, None)
    if config["temperature"] is not None:
        config["do_sample"] = config["temperature"] > 0
    return {key: value for key, value in config.items() if value is not None}
