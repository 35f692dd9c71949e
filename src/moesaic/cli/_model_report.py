"""Reports about a model file for people."""

from typing import Any

from moesaic.cli._model_facts import (
    Support,
    bounded,
    by_class,
    by_type,
    class_of,
    elements,
    expert_bytes,
    files,
    tokenizer_facts,
)
from moesaic.cli._render import print_facts, print_table, share, size, thousands
from moesaic.cli._report import print_memory, select
from moesaic.partitioner.gguf import GgufFile, Metadata

__all__ = ["print_model", "print_model_tensors"]

MAX_SHOWN_ITEMS = 6
MAX_SHOWN_CHARS = 60
MAX_SHOWN_FILES = 4


def print_model(gguf: GgufFile, support: Support) -> None:
    """Facts, metadata, tensors by type and class, and what a default plan would need."""
    total = sum(info.nbytes for info in gguf.tensors.values())
    print_facts(_facts(gguf, support, total))
    print_table(
        "Metadata",
        ("key", "type", "value"),
        [(key, str(gguf.metadata.field(key)), _shown(gguf.metadata, key)) for key in gguf.metadata],
        left=("type", "value"),
    )
    infos = gguf.tensors.values()
    print_table(
        "Tensors by type",
        ("type", "tensors", "parameters", "bytes", "share", "bits a weight", "codec"),
        [(*_sums(row, total), row["codec"] or "none yet") for row in by_type(infos)],
        left=("codec",),
    )
    print_table(
        "Tensors by class",
        ("class", "type", "tensors", "parameters", "bytes", "share", "bits a weight"),
        [(row["class"], *_sums(row, total)) for row in by_class(infos)],
        left=("type",),
    )
    if support.plan:
        print_memory(support.plan, "Memory of a plan with default options")


def print_model_tensors(gguf: GgufFile, pattern: str | None) -> None:
    """The tensor table of the file."""
    matches = select(pattern)
    print_table(
        "Tensors",
        ("tensor", "class", "type", "shape", "bytes", "offset"),
        [
            (
                info.name,
                class_of(info.name),
                info.type.name,
                f"[{', '.join(map(str, info.shape))}]",
                str(info.nbytes),
                str(info.offset),
            )
            for info in gguf.tensors.values()
            if matches(info.name)
        ],
        left=("class", "type", "shape"),
    )


def _facts(gguf: GgufFile, support: Support, total: int) -> list[tuple[str, str]]:
    metadata, parts = gguf.metadata, files(gguf)
    names = ", ".join(f"{name} ({size(count)})" for name, count in parts[:MAX_SHOWN_FILES])
    more = len(parts) - MAX_SHOWN_FILES
    tokenizer = tokenizer_facts(metadata)
    template = tokenizer["chat_template_chars"]
    experts = expert_bytes(gguf)
    parameters = thousands(sum(map(elements, gguf.tensors.values())))
    return [
        ("model", _text(metadata.get("general.name", "no name"))),
        ("architecture", _text(metadata.get("general.architecture", "not given"))),
        ("supported", "yes" if support.supported else "no"),
        ("problem", support.problem or ""),
        ("what to do", support.hint or ""),
        ("files", names + (f" and {more} more" if more > 0 else "")),
        ("format", f"GGUF version {gguf.version}, {len(metadata)} keys"),
        ("tensors", f"{len(gguf.tensors)}, {parameters} parameters, {size(total)}"),
        (
            "routed experts",
            f"{size(experts)}, {share(experts, total)} of the bytes",
        ),
        ("tokenizer", _tokenizer(tokenizer)),
        ("chat template", "none" if template is None else f"{template} characters"),
    ]


def _tokenizer(facts: dict[str, Any]) -> str:
    if facts["model"] is None:
        return "none"
    pre = "" if facts["pre"] is None else f", pre-tokenizer {_text(facts['pre'])}"
    return f"{_text(facts['model'])}{pre}, {facts['tokens'] or 'no'} tokens"


def _sums(row: dict[str, Any], total: int) -> tuple[str, ...]:
    return (
        row["type"],
        str(row["tensors"]),
        thousands(row["parameters"]),
        size(row["bytes"]),
        share(row["bytes"], total),
        f"{8 * row['bytes'] / row['parameters']:.3f}",
    )


def _shown(metadata: Metadata, key: str) -> str:
    """Returns a value on one line, shortened; its type tells the length of an array."""
    value = metadata[key]
    if metadata.field(key).element is None:
        return _text(value)
    items = bounded(value, MAX_SHOWN_ITEMS)
    more = len(value) > len(items)  # type: ignore[arg-type]
    return ", ".join([_item(item) for item in items] + ["…"] * more)


def _item(value: Any) -> str:
    return repr(_text(value)) if isinstance(value, str) else _text(value)


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
