"""The table of GGUF types: which strip codec each one is packed as.

A further type is a row here and a rule in `runtime/csrc/pack`.
"""

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from moesaic.errors import ModelError
from moesaic.partitioner.gguf.part import TensorInfo

__all__ = [
    "MATRIX_CODECS",
    "VECTOR_TYPES",
    "block_size",
    "matrix_codec",
    "row_bytes",
    "vector_codec",
]

_Type = GGMLQuantizationType

MATRIX_CODECS = {
    _Type.F32: "f32",
    _Type.F16: "f16",
    _Type.BF16: "bf16",
    _Type.Q4_0: "u4_f16",
    _Type.Q4_1: "u4_f16_min",
    _Type.Q5_0: "u5_f16",
    _Type.Q5_1: "u5_f16_min",
    _Type.Q8_0: "u8_f16",
    _Type.Q2_K: "u2_super_min",
    _Type.Q3_K: "u3_super",
    _Type.Q4_K: "u4_super_min",
    _Type.Q5_K: "u5_super_min",
    _Type.Q6_K: "u6_super",
    _Type.IQ4_NL: "u4_f16_nl",
    _Type.IQ4_XS: "u4_super_nl",
    _Type.MXFP4: "u4_e8m0_fp4",
}
"""Codec of a matrix by GGUF type."""

VECTOR_TYPES = (_Type.F32, _Type.F16, _Type.BF16)
"""Types a vector (norm weight, bias, table) may have; it is stored as float32."""


def block_size(kind: GGMLQuantizationType) -> tuple[int, int]:
    """Returns (values, bytes) of one block of a type."""
    values, size = GGML_QUANT_SIZES[kind]
    return values, size


def row_bytes(kind: GGMLQuantizationType, cols: int) -> int:
    """Returns the bytes of a row of `cols` values, a whole number of blocks."""
    values, size = block_size(kind)
    return cols // values * size


def matrix_codec(info: TensorInfo) -> str:
    """Returns the codec a matrix is packed as, or raises a `ModelError` that names the tensor."""
    if info.type not in MATRIX_CODECS:
        raise ModelError(
            f"{info.path}: tensor {info.name!r}: type {info.type.name} is not supported",
            hint="use a file quantised to one of " + ", ".join(kind.name for kind in MATRIX_CODECS),
        )
    return MATRIX_CODECS[info.type]


def vector_codec(info: TensorInfo) -> str:
    """Returns the codec of a vector, or raises a `ModelError` if its type is a quantised one."""
    if info.type not in VECTOR_TYPES:
        raise ModelError(
            f"{info.path}: tensor {info.name!r}: a vector of type {info.type.name}, expected "
            + ", ".join(kind.name for kind in VECTOR_TYPES),
            hint="convert the model again; converters keep vectors in a float type",
        )
    return "f32"
