"""A plan of many layers on several devices, for reports: it describes, it cannot be executed."""

from pathlib import Path

import msgspec
from kit.tiny_plan import tiny_plan

from moesaic.plan_format import (
    Assignment,
    Device,
    DeviceSeconds,
    Facts,
    Memory,
    PlanFile,
    Prediction,
    Step,
    Tensor,
    plan_uuid,
    tensor_list_digest,
)

GIB = 1 << 30
DENSE, EXPERTS = 300 << 20, 4 * GIB
STACK = 64
"""Experts of a layer."""


def many_layers(layers: int, gpus: int) -> PlanFile:
    """Makes the plan: the layers in ranges on the GPUs, experts on the host.

    Each GPU also owns a quarter of the experts of its first layer, and all of its second's.
    """
    base = tiny_plan().file
    names = ["cpu", *(f"cuda:{i}" for i in range(gpus))]
    tensors, steps, rows = [], [], []
    for layer in range(layers):
        per_gpu = -(-layers // max(gpus, 1))
        main = names[1 + layer // per_gpu] if gpus else "cpu"
        tensors += [
            _tensor(f"dense.{layer}", DENSE, 1),
            _tensor(f"experts.{layer}", EXPERTS, STACK),
        ]
        node = f"/layers.{layer}/attn/q_proj"
        steps.append(Step("Linear", main, [node], {}, [], [], [f"dense.{layer}"]))
        rows.append(Assignment(node, main, DENSE, 0.0, 0.0, "dense first"))
        node = f"/layers.{layer}/moe/experts"
        there = {0: STACK // 4, 1: STACK}.get(layer % per_gpu, 0) if gpus else 0
        for device, owned in ((main, range(there)), ("cpu", range(there, STACK))):
            if owned:
                share = len(owned) / STACK
                weights: list[str | None] = [f"experts.{layer}"]
                steps.append(Step("Experts", device, [node], {}, [], [], weights, list(owned)))
                size, why = round(share * EXPERTS), "the rest" if device == "cpu" else "room"
                rows.append(Assignment(node, device, size, 0.0, 0.0, why))
    used = {name: sum(row.weight_bytes for row in rows if row.device == name) for name in names}
    return msgspec.structs.replace(
        base,
        uuid=str(plan_uuid(tensor_list_digest(tensors))),
        devices=[
            Device(name, "EP", (400 if name == "cpu" else 24) * GIB, 0, 0, _facts(name))
            for name in names
        ],
        memory=[
            Memory(name, used[name], GIB, GIB // 2, GIB // 4, GIB // 8, used[name] + 15 * GIB // 8)
            for name in names
        ],
        prediction=_prediction(names),
        tensors=tensors,
        program=steps,
        assignment=rows,
    )


def write(file: PlanFile, folder: Path) -> Path:
    """Writes the ``plan.json`` alone, which is all that most reports read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_bytes(msgspec.json.encode(file))
    return folder


def _tensor(name: str, size: int, count: int) -> Tensor:
    return Tensor(name, 4096, size, count, size // count, [], "0" * 16)


def _facts(name: str) -> Facts:
    if name == "cpu":
        return Facts(40e9, 800e9, 200e9, 1e-5)
    return Facts(900e9, 9e12, 4e12, 1e-5, 25e9, 2e-5, "assumed")


def _prediction(names: list[str]) -> Prediction:
    return Prediction(
        context=1024,
        chunk=512,
        decode_tokens_per_second=12.25,
        prefill_tokens_per_second=345.5,
        handovers=2,
        handover_decode_seconds=0.0005,
        handover_prefill_seconds=0.005,
        devices=[DeviceSeconds(name, 0.0625, 0.75) for name in names],
        notes=["the experts of most layers stay on the host"],
    )
