"""The schema of ``plan.json``: what the partitioner writes and the runtime reads.

``docs/plan-format.md`` explains it. The file is decoded strictly: unknown fields and wrong types
are errors. This module is the meeting point of the two halves and imports neither.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec
import xxhash

from moesaic.usage_format import Usage

__all__ = [
    "FORMAT",
    "KV_TYPES",
    "PAGE_TOKENS",
    "VERSION",
    "WEIGHTS_HEADER_BYTES",
    "WEIGHTS_MAGIC",
    "Assignment",
    "Buffer",
    "Cache",
    "Device",
    "DeviceSeconds",
    "Facts",
    "KvType",
    "Limits",
    "Memory",
    "ModelFacts",
    "Origin",
    "Parent",
    "Part",
    "PlanFile",
    "Prediction",
    "Source",
    "Step",
    "Tensor",
    "Wishes",
    "plan_uuid",
    "tensor_list_digest",
    "weights_header",
]

FORMAT = "moesaic-plan"
VERSION = 1
WEIGHTS_MAGIC = b"MOESAICW"
WEIGHTS_HEADER_BYTES = 4096
PAGE_TOKENS = 32

KvType = Literal["f16", "f32", "bf16", "q8_0"]
KV_TYPES: tuple[KvType, ...] = get_args(KvType)


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of every record: immutable, and strict about its fields."""


class Part(_Strict, frozen=True):
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


class Tensor(_Strict, frozen=True):
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


class Facts(_Strict, frozen=True):
    """How fast a device is, as far as planning asks.

    Attributes:
        read_bandwidth: Bytes a second of streaming weights from its own memory.
        int8_rate: Operations a second (a multiplication and an addition are two) of the kernels
            that multiply integer weights.
        float_rate: The same of the kernels that multiply float weights.
        latency: Seconds that it takes to start a kernel on all of the device.
        link_bandwidth: Bytes a second between it and the host; 0 for the host itself.
        link_latency: Seconds that a hand-over to or from the host takes at least.
        source: Whether this was measured on the machine, or assumed for a device of its kind.
    """

    read_bandwidth: float
    int8_rate: float
    float_rate: float
    latency: float
    link_bandwidth: float = 0.0
    link_latency: float = 0.0
    source: Literal["measured", "assumed"] = "measured"


class Device(_Strict, frozen=True):
    """A device of the plan.

    Attributes:
        name: ``cpu`` or ``cuda:N``.
        provider: Its execution provider.
        budget: Bytes that the plan may use there, None for no limit.
        arena_bytes: Size of its activation arena.
        scratch_bytes: Size of its scratch memory.
        facts: The speed that the plan was made for.
    """

    name: str
    provider: str
    budget: int | None
    arena_bytes: int
    scratch_bytes: int
    facts: Facts | None = None


class Limits(_Strict, frozen=True):
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


class Cache(_Strict, frozen=True):
    """The KV cache of one attention layer; ``window`` is 0 for full attention.

    In the graph, past and present are float32 for ``f32`` and float16 for every other type.
    """

    layer: int
    device: str
    window: int
    kv_heads: int
    k_dim: int
    v_dim: int
    dtype: KvType


class Assignment(_Strict, frozen=True):
    """Where a graph node runs: its weight bytes, seconds planned for one token and for a chunk.

    A node whose experts are split has a row for each device. ``why`` is the rule that put it there.
    """

    node: str
    device: str
    weight_bytes: int
    decode_seconds: float
    prefill_seconds: float
    why: str = ""


class Memory(_Strict, frozen=True):
    """Planned bytes of one device; ``total`` is their sum."""

    device: str
    weights: int
    kv: int
    activations: int
    staging: int
    reserve: int
    total: int


class Buffer(_Strict, frozen=True):
    """A region of a device's activation arena, see the plan format."""

    name: str
    device: str
    dtype: Literal["f32", "i32"]
    rows: Literal["tokens", "wanted"]
    offset: int
    bytes_per_row: int
    max_rows: int


class Step(_Strict, frozen=True):
    """One operation of the program, run on ``device`` over the buffers and tensors named here."""

    op: str
    device: str
    nodes: list[str]
    attrs: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    weights: list[str | None]
    experts: list[int] | None = None


class ModelFacts(_Strict, frozen=True):
    """What the model is, for people and reports; only ``vocab_size`` matters to execution."""

    name: str
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    context_length: int
    experts: int
    experts_used: int
    parameters: int


class Parent(_Strict, frozen=True):
    """A model that this one was made from: its name, who published it, and where."""

    name: str | None
    organization: str | None
    url: str | None


class Origin(_Strict, frozen=True):
    """What a model file says of where it comes from: its ``general.*`` keys, unverified.

    Attributes:
        license: Identifier of the licence, such as ``apache-2.0``.
        license_name: Its name, if it is not one of the well-known ones.
        license_link: Where its text is.
        languages: Codes of the languages that the model knows.
        tags: Words to find it by.
        parents: The models that it was made from.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    languages: list[str] = []
    tags: list[str] = []
    parents: list[Parent] = []


class Source(_Strict, frozen=True):
    """The model file that was partitioned: its name without folders, its size, its tensor types."""

    file: str
    bytes: int
    types: dict[str, int]
    origin: Origin = msgspec.field(default_factory=Origin)


class DeviceSeconds(_Strict, frozen=True):
    """Time that a device works on one decoded token, and on a chunk of a prompt."""

    device: str
    decode: float
    prefill: float


class Prediction(_Strict, frozen=True):
    """Speed that the cost model expects, for one sequence.

    Attributes:
        context: Older tokens that the decoded token attends to.
        chunk: Tokens of the prompt that are processed at once.
        decode_tokens_per_second: Decoded tokens.
        prefill_tokens_per_second: Tokens of a prompt.
        handovers: Copies between devices in a step.
        handover_decode_seconds: Their time for a decoded token.
        handover_prefill_seconds: Their time for a chunk.
        devices: What each device contributes. Devices that work on the same experts node at the
            same time may add up to more than a token takes.
        notes: What is remarkable about the placement, in sentences for people.
    """

    context: int
    chunk: int
    decode_tokens_per_second: float
    prefill_tokens_per_second: float
    handovers: int
    handover_decode_seconds: float
    handover_prefill_seconds: float
    devices: list[DeviceSeconds]
    notes: list[str]


class Wishes(_Strict, frozen=True):
    """What the plan was asked for; placing it anew keeps what is not asked for again.

    Attributes:
        devices: Devices by name and their budgets, also those on which nothing is placed.
        place: ``REGEX=DEVICE`` rules, the later ones win.
        usage: The profile by which experts were chosen, None without one.
    """

    devices: dict[str, int | None] = {}
    place: list[str] = []
    usage: Usage | None = None


class PlanFile(_Strict, frozen=True):
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
    wishes: Wishes = msgspec.field(default_factory=Wishes)
    prediction: Prediction | None = None


def tensor_list_digest(tensors: Sequence[Tensor]) -> bytes:
    """Returns the big-endian xxh3-128 of a tensor list, as ``weights.bin`` holds it."""
    text = msgspec.json.encode(tensors, order="sorted")
    digest: bytes = xxhash.xxh3_128_digest(text)
    return digest


def plan_uuid(digest: bytes) -> UUID:
    """Returns the uuid that names the content: the digest with version 8 and variant bits set."""
    raw = bytearray(digest)
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return UUID(bytes=bytes(raw))


def weights_header(tensors: Sequence[Tensor], file_bytes: int) -> bytes:
    """Returns the first page of the `weights.bin` that holds these tensors."""
    digest = tensor_list_digest(tensors)
    fields = (
        WEIGHTS_MAGIC,
        VERSION.to_bytes(4, "little"),
        WEIGHTS_HEADER_BYTES.to_bytes(4, "little"),
        plan_uuid(digest).bytes,
        digest,
        file_bytes.to_bytes(8, "little"),
    )
    return b"".join(fields).ljust(WEIGHTS_HEADER_BYTES, b"\0")
