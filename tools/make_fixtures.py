"""Writes the tiny models of tests/golden/models: GGUF files and what transformers makes of them.

Needs torch and transformers, which neither moesaic nor its tests do::

    python tools/make_fixtures.py                # every case
    python tools/make_fixtures.py gpt-oss-f32    # some

Each case gives ``<case>.gguf`` and ``<case>.npz``; tests/golden/models/README.md says what is in
them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures import vocabulary
from fixtures.families import CASES, FAMILIES, shapes, write_metadata
from fixtures.model import Case, Tensors, draw, fuse, split_experts, unfuse
from fixtures.quantize import encode
from gguf import GGUFWriter

OUT = Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
GREEDY = 16  # tokens of the stored continuation
SENTENCEPIECE = ("spm", "gemma", "phi")


def write_tokenizer(w: GGUFWriter, c: Case) -> list[int]:
    """Writes the case's tokenizer; returns the ids of ordinary tokens."""
    if c.tokenizer in SENTENCEPIECE:
        kind = {} if c.tokenizer == "spm" else {c.tokenizer: True}
        return vocabulary.sentencepiece(w, c.vocab, old=c.split, **kind)
    return vocabulary.byte_level(w, c.vocab, c.tokenizer)


def write_model(c: Case, path: Path) -> tuple[Tensors, list[int]]:
    """Writes the GGUF file; returns its decoded tensors and the ids of ordinary tokens."""
    w = GGUFWriter(path, c.family)
    write_metadata(w, c)
    ordinary = write_tokenizer(w, c)
    plain_rows = np.zeros(c.vocab, dtype=bool)
    plain_rows[ordinary] = True
    tensors = {name: draw(c, name, shape, plain_rows) for name, shape in shapes(c).items()}
    if c.fused:
        tensors = fuse(tensors)
    if c.split:
        tensors = split_experts(tensors)
    for name, x in tensors.items():
        kind = c.type_of(name, x.shape)
        raw, tensors[name] = encode(x, kind)
        w.add_tensor(name, raw, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return tensors, ordinary


def load(c: Case, tensors: Tensors) -> Any:
    """The transformers model with a file's weights."""
    family = FAMILIES[c.family]
    model = family.build(c).eval().float()
    renamed = family.rename(c, unfuse(c, tensors))
    state = {n: torch.from_numpy(np.ascontiguousarray(x)) for n, x in renamed.items()}
    report = model.load_state_dict(state, strict=False)
    left = [n for n in report.missing_keys if not (c.tied and n == "lm_head.weight")]
    if left or report.unexpected_keys:
        raise AssertionError(f"{c.name}: missing {left}, unexpected {report.unexpected_keys}")
    return model


def prompt_of(c: Case, ordinary: list[int]) -> np.ndarray:
    """Random ordinary ids, after a BOS where the tokenizer would put one."""
    rng = np.random.default_rng([c.seed, 7])
    tokens = rng.choice(ordinary, c.prompt).astype(np.int32)
    if c.tokenizer in SENTENCEPIECE:
        tokens[0] = 2 if c.tokenizer == "gemma" else 1
    return tokens


def reference(c: Case, model: Any, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Teacher-forced logits of the prompt and its greedy continuation with top-2 margins."""
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.no_grad():
        logits = model(ids).logits[0].numpy()
    model.generation_config.eos_token_id = None
    grown = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=GREEDY,
        do_sample=False,
        use_cache=c.rope["rope_type"] != "longrope",  # whose tables change with the length
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    top = torch.stack([step[0] for step in grown.logits]).topk(2).values
    return {
        "tokens": tokens,
        "logits": logits,
        "greedy": grown.sequences[0, len(tokens) :].numpy().astype(np.int32),
        "margins": (top[:, 0] - top[:, 1]).numpy(),
    }


def make(c: Case) -> None:
    """Writes both files of a case and prints a line about them."""
    path = OUT / f"{c.name}.gguf"
    tensors, ordinary = write_model(c, path)
    found = reference(c, load(c, tensors), prompt_of(c, ordinary))
    if not set(found["greedy"].tolist()) <= set(ordinary):
        raise AssertionError(f"{c.name}: the continuation has special tokens, change the seed")
    np.savez_compressed(path.with_suffix(".npz"), **found)  # type: ignore[arg-type]
    print(
        f"{c.name:20} {path.stat().st_size / 1e3:6.0f} KB  logits std {found['logits'].std():5.2f}"
        f"  max {np.abs(found['logits']).max():5.1f}  margin {found['margins'].min():.3f}"
        f"  distinct {len(set(found['greedy'].tolist()))}"
    )


def main() -> None:
    """Makes the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    names = parser.parse_args().cases
    unknown = set(names) - {c.name for c in CASES}
    if unknown:
        sys.exit(f"unknown cases {sorted(unknown)}; there are {[c.name for c in CASES]}")
    OUT.mkdir(parents=True, exist_ok=True)
    for c in CASES:
        if not names or c.name in names:
            make(c)


if __name__ == "__main__":
    main()
