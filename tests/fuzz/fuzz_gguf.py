"""The partitioner under atheris: any file is refused with one of our errors, or it is planned.

The input is a model's header; tensor data follow as zeros, unless its last byte is odd, so that
sizes and offsets can be right without megabytes of input.
"""

import os
import sys
import tempfile
import tracemalloc
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["moesaic.partitioner", "moesaic.plan_format"]):
    import moesaic
    from moesaic.errors import MoesaicError
    from moesaic.partitioner.gguf import read_gguf
    from moesaic.partitioner.gguf.tokenizer import convert_tokenizer

PADDING = 512 << 10
MOST_MEMORY = 256 << 20

path = Path(tempfile.mkdtemp()) / "fuzz.gguf"


def test_one_input(data: bytes) -> None:
    """Reads, decodes, plans and converts the tokenizer, as ``partition`` does."""
    path.write_bytes(data)
    if data[-1:] and data[-1] % 2 == 0:
        os.truncate(path, len(data) + PADDING)
    tracemalloc.start()
    try:
        model = read_gguf(path)
        for name, info in model.tensors.items():
            assert model.data(name).size == info.nbytes
        moesaic.partition(path, dry_run=True, context=64, sequences=1, batch=32)
        convert_tokenizer(model.metadata)
    except MoesaicError as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
