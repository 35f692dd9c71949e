"""Reads GGUF files, the model format of llama.cpp, without trusting them."""

from moesaic.partitioner.gguf.metadata import Metadata
from moesaic.partitioner.gguf.reader import GgufFile, TensorInfo, read_gguf

__all__ = ["GgufFile", "Metadata", "TensorInfo", "read_gguf"]
