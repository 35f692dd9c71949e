"""Writes GGUF files with the exact shapes, types and metadata of real models and random weights.

Speed measured on them is real, text is not::

    python benchmarks/synthetic.py gpt-oss-20b -o gpt-oss-20b.gguf
    python benchmarks/synthetic.py mixtral-8x7b --layers 2 -o mixtral-2.gguf
    python benchmarks/synthetic.py --list
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFWriter
from gguf import GGMLQuantizationType as Type
from synthetic_base import Model, Tensor
from synthetic_blocks import BlockStream
from synthetic_models import MODELS

ALIGNMENT = 32
PIECE = 4 << 20  # bytes written at a time


def padded(size: int) -> int:
    """``size`` rounded up to the file's alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def data_bytes(model: Model) -> int:
    """Bytes of the tensor data section."""
    return sum(padded(t.bytes) for t in model.tensors(model))


def describe(model: Model) -> str:
    """One line: tensors of each type and bytes."""
    counts = Counter(t.kind.name for t in model.tensors(model))
    kinds = " + ".join(f"{n} {kind}" for kind, n in counts.most_common())
    return (
        f"{model.name:14} {model.layers} layers, {counts.total()} tensors = {kinds}, "
        f"{data_bytes(model) / 1e9:.3f} GB"
    )


def write_header(model: Model, path: Path) -> None:
    """Writes everything but the tensor data."""
    w = GGUFWriter(path, model.arch)
    model.metadata(w, model)
    for t in model.tensors(model):
        values, size = GGML_QUANT_SIZES[t.kind]
        shape = (*t.shape[:-1], t.shape[-1] // values * size)
        w.add_tensor_info(t.name, shape, np.dtype(np.uint8), t.bytes, raw_dtype=t.kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()


def write_tensor(out: BinaryIO, t: Tensor, stream: BlockStream, rng: np.random.Generator) -> None:
    """Writes one tensor and its padding."""
    if t.kind is Type.F32:  # norms, biases, routers: small, and some have a mean
        x = t.mean + t.sigma * rng.standard_normal(t.shape, dtype=np.float32)
        out.write(x.astype("<f4").tobytes())
    else:
        left = t.bytes
        while left:
            left -= out.write(stream.read(t.kind, t.sigma, min(left, PIECE)))
    out.write(bytes(padded(t.bytes) - t.bytes))


def write(model: Model, path: Path, *, progress: bool = False, seed: int = 0) -> None:
    """Writes ``model`` to ``path``; whole or absent, in about 100 MB of memory.

    Raises:
        OSError: There is not enough room.
    """
    total = data_bytes(model)
    free = shutil.disk_usage(path.parent).free
    if free < total:
        raise OSError(f"{path.parent} has {free / 1e9:.1f} GB free, {total / 1e9:.1f} are needed")
    partial = path.with_name(path.name + ".part")
    stream, rng = BlockStream(seed), np.random.default_rng(seed)
    try:
        write_header(model, partial)
        with partial.open("r+b") as out:
            out.seek(0, os.SEEK_END)
            out.write(bytes(-out.tell() % ALIGNMENT))
            start, began = out.tell(), time.monotonic()
            for t in model.tensors(model):
                write_tensor(out, t, stream, rng)
                if progress:
                    _show(t.name, out.tell() - start, total, time.monotonic() - began)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _show(name: str, done: int, total: int, seconds: float) -> None:
    rate = done / max(seconds, 1e-9)
    line = f"{done / total:4.0%} {rate / 1e9:5.2f} GB/s {(total - done) / rate:4.0f} s left  {name}"
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line:70}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", choices=MODELS, help="which model")
    parser.add_argument("-o", "--output", type=Path, help="default: MODEL.gguf")
    parser.add_argument("--layers", type=int, help="write only the first this many layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="list the models and write nothing")
    arguments = parser.parse_args()
    if arguments.list or not arguments.model:
        print("\n".join(describe(m) for m in MODELS.values()))
        return
    model = MODELS[arguments.model]
    if arguments.layers is not None:
        if not 1 <= arguments.layers <= model.layers:
            parser.error(f"--layers must be 1 to {model.layers}")
        model = dataclasses.replace(model, layers=arguments.layers)
    path = arguments.output or Path(f"{model.name}.gguf")
    print(describe(model))
    write(model, path, progress=True, seed=arguments.seed)
    print(f"\n{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
