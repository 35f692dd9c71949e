"""Writes the model card of a plan, its ``README.md``: planned figures, until somebody measures.

A card ends in a hash of itself. One that was edited no longer fits its hash, and is left alone.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import xxhash

from moesaic import __version__
from moesaic.errors import PlanError
from moesaic.markdown import one_line, plain, table
from moesaic.plan_facts import class_of, group_nodes, layer_ranges, weights_by_class
from moesaic.plan_file import read_plan
from moesaic.plan_format import ModelFacts, Origin, Parent, PlanFile
from moesaic.replace import replace_files
from moesaic.units import size, thousands

__all__ = ["CARD_FILE", "file_sizes", "is_edited", "model_card", "put_card", "write_card"]

CARD_FILE: Final = "README.md"
MAX_CARD_BYTES: Final = 1 << 20
FILES: Final = {
    "plan.json": "placement, memory and the lowered program",
    "weights.bin": "all weights, packed into strips",
    "model.onnx": "the graph, which does not depend on the placement",
    "tokenizer.json": "the tokenizer",
    "tokenizer_config.json": "its settings",
    "chat_template.jinja": "how chats become prompts",
    "generation_config.json": "end tokens and sampling defaults",
    "genai_config.json": "for onnxruntime-genai",
}
CLASSES: Final = {
    "embed": "embedding",
    "dense": "attention and dense parts",
    "experts": "routed experts",
    "head": "norm and output head",
}

_MARK = "<!-- moesaic card "
_HUB = re.compile(r"https?://huggingface\.co/([\w.-]+/[\w.-]+)/?", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def write_card(folder: Path, *, force: bool = False) -> Path:
    """Writes the card of a plan directory, atomically, and returns its path.

    Args:
        folder: The plan.
        force: Replace a card that was edited, or written by somebody else.

    Raises:
        PlanError: The plan cannot be read, the card was edited, or it cannot be written.
    """
    file = read_plan(folder)
    path = folder / CARD_FILE
    if not force and is_edited(folder):
        raise PlanError(
            f"{path} was edited, or is not a card that moesaic wrote",
            hint="replace it with --force, or keep it",
        )
    try:
        replace_files({path: model_card(file, file_sizes(folder)).encode()})
    except OSError as error:
        raise PlanError(
            f"{path}: cannot be written: {error.strerror}",
            hint="check the path and its permissions",
        ) from error
    return path


def put_card(folder: Path, file: PlanFile, before: Path) -> None:
    """Writes the card of a new plan; an edited one of the plan that it replaces is kept.

    Args:
        folder: Where the new plan is being written; its other files are complete.
        file: The new plan.
        before: The plan directory that it will replace; it need not exist.
    """
    path, old = folder / CARD_FILE, before / CARD_FILE
    if is_edited(before) and old.is_file() and not old.is_symlink():
        shutil.copyfile(old, path)
    else:
        path.write_text(model_card(file, file_sizes(folder)), encoding="utf-8")


def is_edited(folder: Path) -> bool:
    """Tells whether a plan directory has a card that is not as `model_card` made it."""
    path = folder / CARD_FILE
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            return True
        with path.open("rb") as stream:
            data = stream.read(MAX_CARD_BYTES)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    text, mark, _ = data.rpartition(_MARK.encode())
    return not mark or data != text + _mark(text).encode()


def file_sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of the files that a card lists, as far as they are there."""
    paths = {name: folder / name for name in FILES}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}


def model_card(file: PlanFile, sizes: Mapping[str, int]) -> str:
    """Returns the card, Markdown with a YAML front matter as Hugging Face reads it.

    Args:
        file: The plan.
        sizes: Bytes of its files by name.
    """
    sections = (
        f"---\n{_front_matter(file)}\n---\n",
        f"# {plain(file.model.name) or 'Model without a name'}\n",
        _introduction(file),
        "## Model\n\n" + _model(file),
        _RUNNING,
        "## Placement\n\n" + _placement(file),
        "## Memory\n\n" + _memory(file),
        "## Speed\n\n" + _speed(file),
        "## Exactness\n\n" + _exactness(file),
        "## Files\n\n" + _files(file, sizes),
    )
    text = "\n".join(sections) + "\n"
    return text + _mark(text.encode())


def _mark(text: bytes) -> str:
    digest = xxhash.xxh3_64_hexdigest(text)
    return f"{_MARK}{digest}: while this fits, partitioning may replace the card -->\n"


def _front_matter(file: PlanFile) -> str:
    from huggingface_hub.repocard_data import ModelCardData

    origin = file.source.origin
    bases = [match[1] for p in origin.parents if p.url and (match := _HUB.fullmatch(p.url))]
    languages = [code for code in origin.languages if _LANGUAGE.fullmatch(code)]
    identifier, name = _license(origin)
    data = ModelCardData(
        language=languages or None,
        base_model=bases or None,
        library_name="moesaic",
        pipeline_tag="text-generation",
        tags=_tags(file.model, origin),
        license=identifier,
        license_name=name and one_line(name),
        license_link=origin.license_link and one_line(origin.license_link),
    )
    text: str = data.to_yaml(line_break="\n")
    return text.strip()


def _license(origin: Origin) -> tuple[str | None, str | None]:
    """Returns identifier and name; what is no identifier is called `other`, and named."""
    identifier = (origin.license or "").lower()
    if not identifier or _LICENSE.fullmatch(identifier):
        return identifier or None, origin.license_name
    return "other", origin.license_name or origin.license


def _tags(model: ModelFacts, origin: Origin) -> list[str]:
    """The word for the files, the family and its kind, then what the model file says."""
    tags = ["gguf", "onnx"]
    if re.fullmatch(r"[\w.-]{1,64}", model.architecture, re.ASCII):
        tags.append(model.architecture)
    if model.experts:
        tags.append("mixture-of-experts")
    return list(dict.fromkeys([*tags, *map(one_line, origin.tags)]))


def _introduction(file: PlanFile) -> str:
    kind = "a mixture of experts" if file.model.experts else "a dense model"
    return (
        f"A plan for moesaic: {kind} of the family {plain(file.model.architecture)}, packed and "
        f"placed on {', '.join(plain(device.name) for device in file.devices)}. "
        f"Written by moesaic {__version__}; figures are planned ones where it does not say "
        "that they were measured.\n"
    )


def _model(file: PlanFile) -> str:
    model, source = file.model, file.source
    rows = [
        ("parameters", thousands(model.parameters)),
        ("layers", f"{model.layers}, {model.hidden_size} wide"),
        ("experts", f"{model.experts}, {model.experts_used} of them a token"),
        ("vocabulary", f"{model.vocab_size} tokens"),
        ("trained context", f"{model.context_length} tokens"),
        ("source", f"{plain(source.file)}, {size(source.bytes)}"),
        ("tensor types", ", ".join(f"{plain(t)} ({n})" for t, n in source.types.items())),
        ("licence", plain(source.origin.license or "not given by the model file")),
    ]
    rows += [("made from", _parent(parent)) for parent in source.origin.parents]
    return table(("what", "value"), [row for row in rows if row[0] != "experts" or model.experts])


def _parent(parent: Parent) -> str:
    name = " / ".join(plain(text) for text in (parent.organization, parent.name) if text)
    return ", ".join(text for text in (name, plain(parent.url or "")) if text)


_RUNNING: Final = """\
## Running it

In this folder, after `pip install moesaic`:

```bash
moesaic run . "Once upon a time"
moesaic inspect . --verify        # checks every hash
moesaic partition . --vram 8GiB   # places it anew, in a second; the weights stay
```

```python
import moesaic

with moesaic.Runtime(".") as rt:
    print(rt.generate("Once upon a time", max_tokens=64))
```
"""


def _placement(file: PlanFile) -> str:
    groups = group_nodes(((row, "") for row in file.assignment), class_of)
    return table(
        ("what", "device", "layers", "weights"),
        [
            (CLASSES[g.name], plain(g.device), layer_ranges(g.layers), size(g.weight_bytes))
            for g in groups
        ],
        right=("weights",),
    )


def _memory(file: PlanFile) -> str:
    limits = file.limits
    budgets = {device.name: device.budget for device in file.devices}
    classes = weights_by_class(file)
    columns = ("weights", "of which experts", "KV cache", "activations", "staging", "reserve")
    rows = []
    for m in file.memory:
        budget = budgets.get(m.device)
        experts = classes.get(m.device, {}).get("experts", 0)
        counts = (m.weights, experts, m.kv, m.activations, m.staging, m.reserve, m.total)
        rows.append(
            (
                plain(m.device),
                *map(size, counts),
                "none" if budget is None else size(budget),
            )
        )
    return (
        table(("device", *columns, "total", "budget"), rows, right=(*columns, "total", "budget"))
        + f"\nPlanned for a context of {limits.context} tokens, {limits.sequences} sequences at "
        f"once and {limits.batch} tokens a step. Not measured.\n"
    )


def _speed(file: PlanFile) -> str:
    prediction = file.prediction
    if prediction is None:
        return "Not measured, and not predicted: the speed of the devices was not known.\n"
    facts = [
        f"{plain(device.name)} {device.facts.source}" for device in file.devices if device.facts
    ]
    rows = [
        ("prompt", f"{prediction.chunk} tokens", prediction.prefill_tokens_per_second),
        ("generation", f"after {prediction.context} tokens", prediction.decode_tokens_per_second),
    ]
    return (
        table(
            ("what", "of", "tokens/s"),
            [(what, of, f"{speed:.1f} (predicted)") for what, of, speed in rows],
            right=("tokens/s",),
        )
        + f"\nPredicted for one sequence by the cost model, from what is known of the devices: "
        f"{', '.join(facts) or 'nothing'}. Not measured.\n"
    )


def _exactness(file: PlanFile) -> str:
    caches = " and ".join(sorted({cache.dtype for cache in file.caches})) or "no type"
    return (
        "Packing loses nothing: a packed weight decodes to what the model file's block decodes to, "
        "at most one unit in the last place of float32 apart. Matrices of integer types are "
        "multiplied by activations rounded to int8 per 32 values, float matrices by float32 "
        f"activations. The KV cache holds {caches}. On the CPU, with one instruction set, results "
        "are the same to the last bit whatever the number of threads, the chunks a prompt is cut "
        "into, and the requests served at the same time.\n"
    )


def _files(file: PlanFile, sizes: Mapping[str, int]) -> str:
    rows = [(name, size(sizes[name]), FILES[name]) for name in FILES if name in sizes]
    return (
        table(("file", "size", "what"), rows, right=("size",))
        + f"\nThe plan's uuid, which follows from the hashes of its weights, is {file.uuid}; "
        f"the SHA-256 of model.onnx is {plain(file.model_sha256)}.\n"
    )
