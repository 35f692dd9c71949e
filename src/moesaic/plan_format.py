"""The schema of ``plan.json``: what the partitioner writes and the runtime reads.

``docs/plan-format.md`` explains it. The file is decoded strictly: unknown fields and wrong types are errors.
This module is the meeting point of the two halves and imports neither.
"""

from typing import Any, Literal

import msgspec

__all__ = [
    "FORMAT",
    "PAGE_TOKENS",
    "VERSION",
    "WEIGHTS_HEADER_BYTES",
    "WEIGHTS_MAGIC",
    "Assignment",
    "Buffer",
    "Cache",
    "Device",
    "Limits",
    "Memory",
    "ModelFacts",
    "Part",
    "PlanFile",
    "Source",
    "Step",
    "Tensor",
]

FORMAT = "moesaic-plan"
VERSION = 1
WEIGHTS_MAGIC = b"MOESAICW"
WEIGHTS_HEADER_BYTES = 4096
PAGE_TOKENS = 32


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of every record: immutable, and strict about its fields."""


class Part(_Strict):
    """One matrix inside a record of ``weights.bin``.

    Attributes:
        role: ``weight``, ``bias``, or within an expert ``gate``, ``up``, ``down`` and ``*_bias``.
        offset: Bytes from the start of the record, a multiple of 64.
        codec: Name of the strip codec.
        rows: Outputs of the matrix, or the length of a vector.
        cols: Inputs of the matrix, 1 for a vector.
    """

    role: str
    offset: int
    codec: str
    rows: int
    cols: int


class Tensor(_Strict):
    """``count`` equal records of ``stride`` bytes at ``offset`` of ``weights.bin``.

    ``xxh3`` is the 64-bit xxh3 of all ``bytes``, in hexadecimal.
    """

    name: str
    offset: int
    bytes: int
    count: int
    stride: int
    parts: list[Part]
    xxh3: str


class Device(_Strict):
    """A device of the plan: ``cpu`` or ``cuda:N``, its execution provider, its budget in bytes."""

    name: str
    provider: str
    budget: int | None
    arena_bytes: int
    scratch_bytes: int


class Limits(_Strict):
    """What the plan's memory was sized for; a runtime may lower these, never raise them.

    Attributes:
        context: Tokens of one sequence.
        sequences: Sequences live at once.
        batch: Tokens of one step (the prefill chunk).
        logits_rows: Rows of one step whose logits may be asked for.
    """

    context: int
    sequences: int
    batch: int
    logits_rows: int


class Cache(_Strict):
    """The KV cache of one attention layer; ``window`` is 0 for full attention."""

    layer: int
    device: str
    window: int
    kv_heads: int
    k_dim: int
    v_dim: int
    dtype: Literal["f16", "f32"]


class Assignment(_Strict):
    """Where a graph node runs: its weight bytes, and seconds planned for one token and for a chunk."""

    node: str
    device: str
    weight_bytes: int
    decode_seconds: float
    prefill_seconds: float


class Memory(_Strict):
    """Planned bytes of one device; ``total`` is their sum."""

    device: str
    weights: int
    kv: int
    activations: int
    staging: int
    reserve: int
    total: int


class Buffer(_Strict):
    """A region of a device's activation arena, see the plan format."""

    name: str
    device: str
    dtype: Literal["f32", "i32"]
    rows: Literal["tokens", "wanted"]
    offset: int
    bytes_per_row: int
    max_rows: int


class Step(_Strict):
    """One operation of the lowered program, run on ``device`` over buffers and tensors named here."""

    op: str
    device: str
    nodes: list[str]
    attrs: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    weights: list[str | None]
    experts: list[int] | None = None


class ModelFacts(_Strict):
    """What the model is, for people and reports; execution depends on none of it but ``vocab_size``."""

    name: str
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    context_length: int
    experts: int
    experts_used: int
    parameters: int


class Source(_Strict):
    """The model file that was partitioned: its name without folders, its size, its tensor types."""

    file: str
    bytes: int
    types: dict[str, int]


class PlanFile(_Strict):
    """``plan.json`` as a whole."""

    format: str
    version: int
    uuid: str
    model_sha256: str
    model: ModelFacts
    source: Source
    devices: list[Device]
    limits: Limits
    caches: list[Cache]
    tensors: list[Tensor]
    assignment: list[Assignment]
    memory: list[Memory]
    buffers: list[Buffer]
    program: list[Step]
