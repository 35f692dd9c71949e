"""Reads GGUF files, the model format of llama.cpp, without trusting them."""

from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.partitioner.gguf.part import TensorInfo
from moesaic.partitioner.gguf.reader import GgufFile, read_gguf
from moesaic.partitioner.gguf.tokenizer import TokenizerFiles, convert_tokenizer

__all__ = [
    "GgufFile",
    "Metadata",
    "TensorInfo",
    "TokenizerFiles",
    "convert_tokenizer",
    "read_gguf",
]
