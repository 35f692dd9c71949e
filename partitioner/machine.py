"""The machine a plan is made for: its devices, their budgets, and what is known of their speed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moesaic.errors import DeviceError, PlacementError

__all__ = ["CPU", "DeviceFacts", "DeviceSpec", "parse_devices", "parse_size"]

CPU = "cpu"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE)
_DEVICE_HINT = "write devices like cpu,cuda:0=24GiB"


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Measured speed of a device.

    Attributes:
        read_bandwidth: Bytes a second of streaming weights.
        flops: Operations a second of the matrix kernels.
        latency: Seconds that a step costs at least.
    """

    read_bandwidth: float
    flops: float
    latency: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to plan for.

    Attributes:
        name: ``cpu`` or ``cuda:N``.
        budget: Bytes the plan may use there, None for no limit.
        facts: Its speed, None if nobody measured it.
    """

    name: str
    budget: int | None = None
    facts: DeviceFacts | None = None

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

    Args:
        devices: Text like ``cpu,cuda:0=24GiB``; None plans for this machine.
        vram: Budget of CUDA devices for which `devices` gives none.
        ram: Budget of the host, if `devices` gives none.
    """
    budgets = _parse_list(devices or CPU)
    if not any(name != CPU for name in budgets) and vram is not None:
        raise DeviceError(
            "vram: there is no CUDA device here",
            hint="plan for another machine with devices, like cpu,cuda:0=24GiB",
        )
    defaults = {True: ram, False: vram}
    specs = []
    for name in [CPU, *(name for name in budgets if name != CPU)]:
        option = "ram" if name == CPU else "vram"
        size = budgets.get(name) or defaults[name == CPU]
        specs.append(DeviceSpec(name, None if size is None else parse_size(size, option)))
    for spec in specs:
        if not spec.is_cpu and spec.budget is None:
            raise PlacementError(
                f"devices: the memory of {spec.name} is not known",
                hint=f"give it, like {spec.name}=24GiB, or give vram",
            )
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
