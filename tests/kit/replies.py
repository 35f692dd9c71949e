"""Tokenizers of models that reason, and replies read token by token."""

from dataclasses import asdict
from pathlib import Path

from kit import vocabularies as vocab

from moesaic.runtime.tokenizer import Tokenizer


def gptoss(folder: Path) -> Tokenizer:
    """The cut-down original with `<|call|>`."""
    keys = vocab.golden("gptoss")["metadata"]
    tokens = [*keys["tokenizer.ggml.tokens"], "<|call|>"]
    types = [*keys["tokenizer.ggml.token_type"], 3]
    more = {"ggml.tokens": tokens, "ggml.token_type": types}
    return Tokenizer(vocab.plan_folder(folder, "gptoss", **more))


def thinking(folder: Path) -> Tokenizer:
    """A byte-level vocabulary with `<think>` and `</think>`, as Qwen3's are."""
    added = (("<|im_start|>", 3), ("<|im_end|>", 3), ("<think>", 4), ("</think>", 4))
    eos = len(vocab.printable()) + 2  # <|im_end|>
    vocab.convert(folder, vocab.byte_keys(*added, eos_token_id=eos)).write(folder)
    return Tokenizer(folder)


def messages(parser, tokens) -> list[dict]:
    """What the parser makes of a reply, the events of each message put together."""
    events = [event for token in tokens for event in parser.push(token)] + parser.finish()
    found: list[dict] = []
    for event in events:
        if event.message == len(found):
            found.append(asdict(event) | {"text": "", "end": None})
        message = found[event.message]
        assert message["end"] is None, "an event after the end of its message"
        assert "\ufffd" not in event.text, "a part of a character"
        same = ("role", "channel", "recipient", "content_type")
        assert all(message[name] == getattr(event, name) for name in same)
        message["text"] += event.text
        message["end"] = event.end
    return found
