"""Writes the seeds of the fuzzers: tiny models and plans, small enough to commit.

Run it after a change of the plan format or a new family, from the root of the repository:
``python tests/fuzz/corpus.py``.
"""

import sys
from pathlib import Path

import msgspec

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(Path(__file__).parent)]

from kit.tiny_plan import tiny_plan  # noqa: E402
from program_bytes import program_bytes  # noqa: E402

import moesaic  # noqa: E402
from moesaic.partitioner.gguf import read_gguf  # noqa: E402

MODELS = TESTS / "golden" / "models"
LIMITS = {"context": 64, "sequences": 2, "batch": 48}


def one_a_family() -> dict[str, Path]:
    """The smallest fixture of each architecture."""
    found: dict[str, Path] = {}
    for path in sorted(MODELS.glob("*.gguf"), key=lambda path: path.stat().st_size):
        if "-of-" not in path.name:
            found.setdefault(read_gguf(path).architecture, path)
    return found


def header(path: Path) -> bytes:
    """A model file up to its tensor data; an even last byte asks the fuzzer for zeros."""
    start = min(info.offset for info in read_gguf(path).tensors.values())
    return path.read_bytes()[:start]


def main(folder: Path) -> None:
    """Writes one folder a target, in place of the old one."""
    for target in ("fuzz_program", "fuzz_plan", "fuzz_gguf"):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for old in (folder / target).glob("seed-*"):
            old.unlink()
    tiny = {
        "cpu": tiny_plan(),
        "split": tiny_plan(split=True),
        "extended": tiny_plan(original_context=20),
        "kv": tiny_plan(batch=64, kv_types=("q8_0", "bf16")),
    }
    for kind, made in tiny.items():
        plan, name = made.file, f"seed-tiny-{kind}"
        (folder / "fuzz_program" / name).write_bytes(program_bytes(plan))
        (folder / "fuzz_plan" / name).write_bytes(msgspec.json.encode(plan))
    for architecture, path in one_a_family().items():
        plan = moesaic.partition(path, dry_run=True, **LIMITS).file
        (folder / "fuzz_program" / f"seed-{architecture}").write_bytes(program_bytes(plan))
        (folder / "fuzz_gguf" / f"seed-{architecture}").write_bytes(header(path))


if __name__ == "__main__":
    main(Path(__file__).parent / "corpus")
