"""A hand-made plan of two layers, small enough to read, valid in every number.

Layer 0 is dense with full attention, layer 1 a mixture of four experts with a window of 40 tokens.
With ``split=True`` everything but two of the experts is placed on ``cuda:0``, with the copies that
needs. With ``original_context`` its rotations have a second table for longer sequences.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from moesaic.plan_format import (
    FORMAT,
    VERSION,
    Assignment,
    Buffer,
    Cache,
    Device,
    KvType,
    Limits,
    Memory,
    ModelFacts,
    Part,
    PlanFile,
    Source,
    Step,
    Tensor,
    plan_uuid,
    tensor_list_digest,
    weights_header,
)

VOCAB, WIDTH, HIDDEN, EXPERTS, USED = 48, 64, 32, 4, 2
HEADS, HEAD_DIM, WINDOW = 2, 32, 40
ACTIVATION = {"activation": "silu", "alpha": 0.0, "limit": 0.0}

# Bytes of a strip's code and scale planes, per column for f32 and f16, else per 32 columns.
_STRIPS = {"f32": (1, 64, 0), "f16": (1, 32, 0), "u8_f16": (32, 512, 32), "u4_f16": (32, 256, 32)}


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _planes(codec: str, cols: int) -> tuple[int, int]:
    unit, code, scale = _STRIPS[codec]
    return _up(cols // unit * code, 64), _up(cols // unit * scale, 64)


def _random_part(rng: np.random.Generator, codec: str, rows: int, cols: int) -> bytes:
    """Random strips whose weights are small finite numbers, also in the padding rows."""
    strips = -(-rows // 16)
    if codec == "f32":
        return rng.normal(0, 0.1, (strips, 16 * cols)).astype("<f4").tobytes()
    if codec == "f16":
        return rng.normal(0, 0.1, (strips, 16 * cols)).astype("<f2").tobytes()
    codes, scales = _planes(codec, cols)
    pieces = []
    for _ in range(strips):
        pieces.append(rng.integers(0, 256, codes, dtype=np.uint8).tobytes())
        pieces.append(rng.uniform(0.0005, 0.001, scales // 2).astype("<f2").tobytes())
    return b"".join(pieces)


@dataclass(frozen=True)
class TinyPlan:
    """A plan in memory: the decoded ``plan.json`` and the bytes of ``weights.bin``."""

    file: PlanFile
    weights: bytes

    def spec(self) -> dict[str, Any]:
        """Returns ``plan.json`` as builtins, a fresh copy to damage."""
        return msgspec.to_builtins(self.file)

    def write(self, folder: Path) -> Path:
        """Writes the plan directory, without the files that the runtime does not need."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(self.spec()))
        (folder / "weights.bin").write_bytes(self.weights)
        return folder


class _Emitter:
    """Collects tensors, buffers and steps; every buffer has memory of its own."""

    def __init__(self, limits: Limits, seed: int, original_context: int) -> None:
        self.limits = limits
        self.original_context = original_context
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.weights = bytearray(4096)
        self.buffers: dict[str, Buffer] = {}
        self.arenas: dict[str, int] = {}
        self.steps: list[Step] = []

    def tensor(self, name: str, *parts: tuple[str, str, int, int], count: int = 1) -> str:
        placed, end = [], 0
        for role, codec, rows, cols in parts:
            placed.append(Part(role, end, codec, rows, cols))
            end += -(-rows // 16) * sum(_planes(codec, cols))
        stride = _up(end, 64)
        offset = len(self.weights)
        for _ in range(count):
            for _, codec, rows, cols in parts:
                self.weights += _random_part(self.rng, codec, rows, cols)
        self.weights += bytes(_up(len(self.weights), 4096) - len(self.weights))
        self.tensors.append(Tensor(name, offset, count * stride, count, stride, placed, "0" * 16))
        return name

    def matrix(self, name: str, rows: int, cols: int, codec: str) -> str:
        return self.tensor(name, ("weight", codec, rows, cols))

    def vector(self, name: str, length: int, role: str = "weight") -> str:
        return self.tensor(name, (role, "f32", length, 1))

    def buffer(
        self, name: str, device: str, width: int, rows: str = "tokens", dtype: str = "f32"
    ) -> str:
        if name not in self.buffers:
            most = self.limits.batch if rows == "tokens" else self.limits.logits_rows
            offset = self.arenas.get(device, 0)
            self.buffers[name] = Buffer(name, device, dtype, rows, offset, 4 * width, most)
            self.arenas[device] = _up(offset + 4 * width * most, 64)
        return name

    def reserved(self, kind: str, device: str) -> str:
        rows = "wanted" if kind == "wanted" else "tokens"
        return self.buffer(f"{kind}@{device}", device, 1, rows, "i32")

    def step(
        self,
        op: str,
        device: str,
        node: str,
        inputs: list[str],
        outputs: list[str],
        weights: list[str | None] | None = None,
        owned: list[int] | None = None,
        **attrs: Any,
    ) -> None:
        self.steps.append(Step(op, device, [node], attrs, inputs, outputs, weights or [], owned))

    def copy(self, device: str, *names: str) -> list[str]:
        """Copies buffers to a device, where they get its name as suffix."""
        copies = []
        for name in names:
            b = self.buffers[name]
            copies.append(
                self.buffer(f"{name}>{device}", device, b.bytes_per_row // 4, b.rows, b.dtype)
            )
        self.step("Copy", device, "/copy", list(names), copies)
        return copies


def _attention(e: _Emitter, device: str, layer: int, window: int, x: str) -> str:
    node = f"/layers.{layer}/attn"
    normed = e.buffer(f"{node}_norm", device, WIDTH)
    norm = e.vector(f"blk.{layer}.attn_norm", WIDTH)
    e.step("RMSNorm", device, f"{node}_norm", [x], [normed], [norm], eps=1e-5, groups=1)
    q = e.buffer(f"{node}/q", device, HEADS * HEAD_DIM)
    k, v = (e.buffer(f"{node}/{n}", device, HEAD_DIM) for n in "kv")
    weights = [
        e.matrix(f"blk.{layer}.q", HEADS * HEAD_DIM, WIDTH, "u8_f16"),
        e.vector(f"blk.{layer}.q_bias", HEADS * HEAD_DIM, "bias"),
        e.matrix(f"blk.{layer}.k", HEAD_DIM, WIDTH, "u8_f16"),
        None,
        e.matrix(f"blk.{layer}.v", HEAD_DIM, WIDTH, "f32"),
        None,
    ]
    e.step("Linear", device, f"{node}/qkv", [normed], [q, k, v], weights)
    positions, sequences = e.reserved("positions", device), e.reserved("sequences", device)
    tables: list[str | None] = [e.vector(f"blk.{layer}.inv_freq", HEAD_DIM // 2), None]
    places = [positions]
    if e.original_context:
        tables[1] = e.vector(f"blk.{layer}.inv_freq_long", HEAD_DIM // 2)
        places.append(e.reserved("extended", device))
    rope = {"head_dim": HEAD_DIM, "rotary_dims": HEAD_DIM, "offset": 0, "scale": 1.0}
    for name, heads in ((q, HEADS), (k, 1)):
        e.step(
            "Rope", device, f"{name}_rope", [name, *places], [name], tables,
            heads=heads, style="neox", original_context=e.original_context, **rope,
        )  # fmt: skip
    y = e.buffer(f"{node}/y", device, HEADS * HEAD_DIM)
    sinks = e.vector(f"blk.{layer}.sinks", HEADS) if window else None
    e.step(
        "Attention", device, f"{node}/attention", [q, k, v, positions, sequences], [y], [sinks],
        cache=layer, heads=HEADS, kv_heads=1, k_dim=HEAD_DIM, v_dim=HEAD_DIM, scale=HEAD_DIM**-0.5,
        window=window, softcap=0.0,
    )  # fmt: skip
    out = e.buffer(f"{node}/o", device, WIDTH)
    o_proj = e.matrix(f"blk.{layer}.o", WIDTH, HEADS * HEAD_DIM, "u4_f16")
    e.step("Linear", device, f"{node}/o_proj", [y], [out], [o_proj, None])
    e.step("Add", device, f"{node}_residual", [x, out], [x])
    return x


def _mlp(e: _Emitter, device: str, layer: int, x: str) -> str:
    node = f"/layers.{layer}/mlp"
    gate, up = (e.buffer(f"{node}/{n}", device, HIDDEN) for n in ("gate", "up"))
    weights = [
        e.matrix(f"blk.{layer}.gate", HIDDEN, WIDTH, "u4_f16"),
        None,
        e.matrix(f"blk.{layer}.up", HIDDEN, WIDTH, "u4_f16"),
        None,
    ]
    e.step("Linear", device, f"{node}/gate_up", [x], [gate, up], weights)
    e.step("GatedActivation", device, f"{node}/act", [gate, up], [gate], **ACTIVATION)
    down = e.buffer(f"{node}/down", device, WIDTH)
    matrix = e.matrix(f"blk.{layer}.down", WIDTH, HIDDEN, "u8_f16")
    e.step("Linear", device, f"{node}/down_proj", [gate], [down], [matrix, None])
    e.step("Add", device, f"/layers.{layer}/ffn_residual", [x, down], [x])
    return x


def _moe(e: _Emitter, device: str, layer: int, x: str, split: bool) -> str:
    node = f"/layers.{layer}/moe"
    router = e.buffer(f"{node}/logits", device, EXPERTS)
    matrix = e.matrix(f"blk.{layer}.router", EXPERTS, WIDTH, "f32")
    bias = e.vector(f"blk.{layer}.router_bias", EXPERTS, "bias")
    e.step("Linear", device, f"{node}/router", [x], [router], [matrix, bias])
    ids = e.buffer(f"{node}/ids", device, USED, dtype="i32")
    scores = e.buffer(f"{node}/weights", device, USED)
    route = {"experts": EXPERTS, "used": USED}
    e.step(
        "Route", device, f"{node}/route", [router], [ids, scores], [None],
        gating="softmax", eps=0.0, renormalise=True, scale=1.0, **route,
    )  # fmt: skip
    stack = e.tensor(
        f"blk.{layer}.experts",
        ("gate", "u4_f16", HIDDEN, WIDTH),
        ("up", "u4_f16", HIDDEN, WIDTH),
        ("down", "u8_f16", WIDTH, HIDDEN),
        ("gate_bias", "f32", HIDDEN, 1),
        ("up_bias", "f32", HIDDEN, 1),
        ("down_bias", "f32", WIDTH, 1),
        count=EXPERTS,
    )
    experts = f"{node}/experts"
    y = e.buffer(experts, device, WIDTH)
    owned = [1, 3] if split else None
    e.step("Experts", device, experts, [x, ids, scores], [y], [stack], owned, **route, **ACTIVATION)
    if split:
        x_cpu, ids_cpu, scores_cpu = e.copy("cpu", x, ids, scores)
        rest = e.buffer(f"{experts}/rest", "cpu", WIDTH)
        inputs = [x_cpu, ids_cpu, scores_cpu]
        e.step("Experts", "cpu", experts, inputs, [rest], [stack], [0, 2], **route, **ACTIVATION)
        (rest,) = e.copy(device, rest)
        e.step("Add", device, experts, [y, rest], [y])
    e.step("Add", device, f"/layers.{layer}/ffn_residual", [x, y], [x])
    return x


def _head(e: _Emitter, device: str, x: str) -> None:
    wanted = e.buffer("/selected", device, WIDTH, "wanted")
    e.step("SelectRows", device, "/selected", [x, e.reserved("wanted", device)], [wanted])
    norm = e.vector("output_norm", WIDTH)
    e.step("RMSNorm", device, "/norm", [wanted], [wanted], [norm], eps=1e-5, groups=1)
    e.step("Scale", device, "/scale", [wanted], [wanted], factor=0.5)
    logits = e.buffer("logits", device, VOCAB, "wanted")
    head = e.matrix("output", VOCAB, WIDTH, "u8_f16")
    e.step("Linear", device, "/lm_head", [wanted], [logits], [head, None])
    e.step("Softcap", device, "/softcap", [logits], [logits], cap=30.0)


def _scratch(limits: Limits) -> int:
    """Enough for every step: the Experts step is the largest."""
    slots = limits.batch * USED
    terms = (6 * slots * WIDTH, 6 * slots * HIDDEN, 4 * slots * WIDTH, 8 * slots, 8 * (EXPERTS + 1))
    return sum(_up(term, 64) for term in terms)


def _devices(e: _Emitter, names: list[str]) -> tuple[list[Device], list[Memory]]:
    scratch = _scratch(e.limits)
    devices, memory = [], []
    for name in names:
        provider = "CPUExecutionProvider" if name == "cpu" else "CUDAExecutionProvider"
        arena = e.arenas.get(name, 0)
        devices.append(Device(name, provider, None, arena, scratch))
        memory.append(Memory(name, 0, 0, arena + scratch, 0, 0, arena + scratch))
    return devices, memory


def _facts() -> dict[str, Any]:
    """What describes the model but does not matter to execution."""
    model = ModelFacts("tiny", "tiny", 2, WIDTH, VOCAB, 128, EXPERTS, USED, 1)
    return {"model": model, "source": Source("tiny.gguf", 1, {"F32": 1})}


def tiny_plan(
    *,
    context: int = 200,
    sequences: int = 3,
    batch: int = 16,
    logits_rows: int = 8,
    split: bool = False,
    seed: int = 0,
    original_context: int = 0,
    kv_types: tuple[KvType, KvType] = ("f16", "f32"),
) -> TinyPlan:
    """Makes the plan; the same arguments make the same bytes."""
    limits = Limits(context, sequences, batch, logits_rows)
    e = _Emitter(limits, seed, original_context)
    main = "cuda:0" if split else "cpu"
    x = e.buffer("/x", main, WIDTH)
    table = e.matrix("token_embd", VOCAB, WIDTH, "f16")
    e.step("Embedding", main, "/embed", [e.reserved("tokens", main)], [x], [table])
    x = _mlp(e, main, 0, _attention(e, main, 0, 0, x))
    x = _moe(e, main, 1, _attention(e, main, 1, WINDOW, x), split)
    _head(e, main, x)
    devices, memory = _devices(e, ["cpu", main] if split else ["cpu"])
    weights = bytes(e.weights)
    header = weights_header(e.tensors, len(weights))
    file = PlanFile(
        format=FORMAT,
        version=VERSION,
        uuid=str(plan_uuid(tensor_list_digest(e.tensors))),
        model_sha256="0" * 64,
        devices=devices,
        limits=limits,
        caches=[
            Cache(layer, main, window, 1, HEAD_DIM, HEAD_DIM, dtype)
            for layer, window, dtype in zip((0, 1), (0, WINDOW), kv_types, strict=True)
        ],
        tensors=e.tensors,
        assignment=[Assignment(step.nodes[0], step.device, 0, 0.0, 0.0) for step in e.steps],
        memory=memory,
        buffers=list(e.buffers.values()),
        program=e.steps,
        **_facts(),
    )
    return TinyPlan(file, header + weights[4096:])


def with_tensors(plan: TinyPlan, tensors: list[Tensor]) -> TinyPlan:
    """The plan with another tensor list, its uuid and header made to fit."""
    uuid = str(plan_uuid(tensor_list_digest(tensors)))
    header = weights_header(tensors, len(plan.weights))
    changed = msgspec.structs.replace(plan.file, tensors=tensors, uuid=uuid)
    return replace(plan, file=changed, weights=header + plan.weights[4096:])
