"""The machine a plan is made for: its devices, their budgets, and what is known of their speed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moesaic import _pack
from moesaic.errors import PlacementError
from moesaic.machine_facts import read_facts
from moesaic.plan_format import Facts

__all__ = ["ASSUMED_CPU", "ASSUMED_CUDA", "CPU", "DeviceSpec", "parse_devices", "parse_size"]

CPU = "cpu"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE)
_DEVICE_HINT = "write devices like cpu,cuda:0=24GiB"


ASSUMED_CPU = Facts(
    read_bandwidth=40e9,
    int8_rate=1.0e12,
    float_rate=2.5e11,
    latency=5e-6,
    source="assumed",
)
"""A desktop computer: two channels of DDR4-3200 (51 GB/s, of which about 40 can be read), eight
cores of 4 GHz at half the peak of their integer dot products, threads woken while they spin."""

ASSUMED_CUDA = Facts(
    read_bandwidth=350e9,
    int8_rate=2.0e13,
    float_rate=6.0e12,
    latency=2e-6,
    link_bandwidth=12e9,
    link_latency=15e-6,
    source="assumed",
)
"""A GPU of the middle class of a few years ago (12 GB, 360 GB/s, 13 TFLOP/s), so that newer ones
only do better: half of its peaks, launches one after the other into a stream, PCIe 3.0 x16 (or 4.0
x8), and hand-overs through memory that the other side polls. A copy with a full synchronisation
takes about three times as long."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to plan for.

    Attributes:
        name: ``cpu`` or ``cuda:N``.
        budget: Bytes the plan may use there, None for no limit.
        facts: Its measured speed, None if nobody measured it.
    """

    name: str
    budget: int | None = None
    facts: Facts | None = None

    @property
    def speed(self) -> Facts:
        """Its speed, as measured or else as assumed for its kind."""
        return self.facts or (ASSUMED_CPU if self.is_cpu else ASSUMED_CUDA)

    @property
    def is_cpu(self) -> bool:
        """Whether this is the host."""
        return self.name == CPU

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of the execution provider."""
        return "CPUExecutionProvider" if self.is_cpu else "CUDAExecutionProvider"


def parse_size(size: int | str, what: str) -> int:
    """Returns a number of bytes.

    Args:
        size: Bytes, or text like ``8GiB``, ``500MB`` or ``1.5G`` (which means GiB).
        what: Name of the option, for the error.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match:
        number, unit, binary, byte = match.groups()
        decimal = unit and byte and not binary
        factor = 1000 ** "kmgt".index(unit.lower()) * 1000 if decimal else _UNITS[unit.lower()]
        if unit or not binary:
            value = int(float(number) * factor)
            if value > 0:
                return value
    raise PlacementError(
        f"{what}: {size!r} is not a size", hint="write sizes like 8GiB, 500MB, or a number of bytes"
    )


def parse_devices(
    devices: str | None, vram: int | str | None, ram: int | str | None
) -> list[DeviceSpec]:
    """Returns the devices to plan for, the host first.

    A plan may be made for a machine that is not here. The host counts as this one if this one was
    measured.

    Args:
        devices: Text like ``cpu,cuda:0=24GiB``; None plans for the host, and for ``cuda:0`` if
            `vram` is given.
        vram: Budget of CUDA devices for which `devices` gives none.
        ram: Budget of the host, if `devices` gives none.
    """
    budgets = _parse_list(devices or (CPU if vram is None else f"{CPU},cuda:0"))
    if vram is not None and set(budgets) == {CPU}:
        raise PlacementError(
            "vram: devices names no CUDA device", hint="add one, like cpu,cuda:0, or leave out vram"
        )
    defaults = {True: ram, False: vram}
    measured = read_facts(_pack.usable_cores())
    specs = []
    for name in [CPU, *(name for name in budgets if name != CPU)]:
        option = "ram" if name == CPU else "vram"
        size = budgets.get(name) or defaults[name == CPU]
        budget = None if size is None else parse_size(size, option)
        specs.append(DeviceSpec(name, budget, measured.get(name)))
    return specs


def _parse_list(text: str) -> Mapping[str, str | None]:
    budgets: dict[str, str | None] = {}
    for item in text.split(","):
        name, _, size = (part.strip() for part in item.partition("="))
        name = "cuda:0" if name == "cuda" else name
        if not re.fullmatch(r"cpu|cuda:(0|[1-9]\d{0,2})", name) or ("=" in item and not size):
            raise PlacementError(f"devices: {item.strip()!r} is not a device", hint=_DEVICE_HINT)
        if name in budgets:
            raise PlacementError(f"devices: {name} is named twice", hint=_DEVICE_HINT)
        budgets[name] = size or None
    return budgets
