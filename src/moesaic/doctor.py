"""What this machine has, how fast it is, and what is missing for what."""

import importlib.util
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from moesaic.cache import cache_folder
from moesaic.cuda import cuda_library, has_driver, why_not_cuda
from moesaic.machine_facts import Machine, this_machine, write_facts
from moesaic.plan_format import Facts
from moesaic.runtime import _native

__all__ = ["Advice", "Diagnosis", "diagnose"]

_MOST_MEASURED = 512 << 20  # bytes that reading is measured with
_SECONDS = 0.4  # for each measurement
_DISK_BYTES = 64 << 20
_SLOW_MEETING = 50e-6  # seconds; threads that spin on idle cores meet within a few microseconds
_LITTLE_MEMORY = 8 << 30
_LITTLE_DISK = 16 << 30
_PACKAGES = {
    "onnxruntime": "opening plans in ONNX Runtime; pip install 'moesaic[onnxruntime]'",
    "matplotlib": "--plot of inspect and partition; pip install 'moesaic[plot]'",
}


class Advice(msgspec.Struct, frozen=True):
    """Something that is missing or slow: what it is, and what it matters for."""

    what: str
    matters: str


class Diagnosis(msgspec.Struct, frozen=True):
    """All that was found.

    Attributes:
        machine: What identifies the machine.
        isa: Instruction set that the CPU kernels use.
        isas: Those that they could use here.
        cores: Cores of the machine that the process is allowed on.
        quota: Cores' worth of time that control groups allow, None without a limit.
        memory_available: Bytes of main memory that are free or can be freed.
        huge_pages: Whether the kernel gives huge pages to who asks for them.
        cuda_driver: Whether there is a CUDA driver.
        cuda_library: moesaic's CUDA library, None if this installation has none.
        cache: The cache folder.
        disk_free: Bytes that are free on its disk.
        disk_write: Bytes a second that were written to it, None if it cannot be written.
        facts: The measured speed of the CPU.
        facts_file: Where it was written, None if it could not be.
        packages: Optional packages, and whether they are there.
        advice: What is missing or slow.
    """

    machine: Machine
    isa: str
    isas: list[str]
    cores: int
    quota: float | None
    memory_available: int
    huge_pages: bool
    cuda_driver: bool
    cuda_library: str | None
    cache: str
    disk_free: int
    disk_write: float | None
    facts: Facts
    facts_file: str | None
    packages: dict[str, bool]
    advice: list[Advice]


def diagnose() -> Diagnosis:
    """Looks at this machine and measures it; takes a few seconds and at most 600 MB.

    The speed is written to the cache folder, where `moesaic.partition` finds it.

    Raises:
        DeviceError: `$MOESAIC_FORCE_ISA` names an instruction set that is not here.
    """
    machine = this_machine(_native.usable_cores())
    available = _memory_available()
    size = max(min(_MOST_MEASURED, available // 4), 1 << 20)
    facts = Facts(**_native.measure_speed(size, _SECONDS), source="measured")
    quota, library = _native.cgroup_quota(), cuda_library()
    free, speed = _disk(cache_folder())
    found = Diagnosis(
        machine=machine,
        isa=_native.isa(),
        isas=_native.available_isas(),
        cores=_native.affinity_cores(),
        quota=None if math.isinf(quota) else quota,
        memory_available=available,
        huge_pages=_huge_pages(),
        cuda_driver=has_driver(),
        cuda_library=None if library is None else str(library),
        cache=str(cache_folder()),
        disk_free=free,
        disk_write=speed,
        facts=facts,
        facts_file=_write(machine, facts),
        packages={name: importlib.util.find_spec(name) is not None for name in _PACKAGES},
        advice=[],
    )
    return msgspec.structs.replace(found, advice=list(_advice(found)))


def _advice(found: Diagnosis) -> Iterator[Advice]:
    best = found.isas[-1]
    if found.isa != best:
        yield Advice(f"kernels use {found.isa}", f"{best} is there: unset MOESAIC_FORCE_ISA")
    elif "avx512_vnni" not in found.machine.flags:
        yield Advice("no AVX-512 VNNI", f"the fastest kernels need it; {found.isa} are used")
    if found.quota is not None and found.quota < found.cores:
        yield Advice(
            f"a control group allows {found.quota:g} of {found.cores} cores",
            "more threads than that would be throttled; raise the container's CPU limit",
        )
    if found.facts.latency > _SLOW_MEETING:
        yield Advice(
            f"waking threads took {found.facts.latency * 1e6:.0f} µs",
            "others use the cores, so plans expect too little of the CPU; measure again when idle",
        )
    if found.memory_available < _LITTLE_MEMORY:
        yield Advice(
            f"{found.memory_available / 2**30:.1f} GiB of memory are available",
            "weights that do not fit are read from the disk for each token",
        )
    if not found.huge_pages:
        yield Advice("no transparent huge pages", "activations are reached a little slower")
    missing = why_not_cuda()
    if missing is not None:
        yield Advice(missing, "plans with cuda:N can be made here, but not run")
    if found.disk_write is None:
        yield Advice(f"{found.cache} cannot be written", "set MOESAIC_CACHE; speeds stay assumed")
    if found.disk_free < _LITTLE_DISK:
        yield Advice(
            f"{found.disk_free / 2**30:.1f} GiB of disk are free for {found.cache}",
            "plans of opened model files are kept there",
        )
    for name, there in found.packages.items():
        if not there:
            yield Advice(f"{name} is not installed", _PACKAGES[name])


def _write(machine: Machine, facts: Facts) -> str | None:
    try:
        return str(write_facts(machine, {"cpu": facts}))
    except OSError:
        return None


def _memory_available() -> int:
    """Returns the kernel's estimate of what can be used without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _huge_pages() -> bool:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return False
    return "[never]" not in text


def _disk(folder: Path) -> tuple[int, float | None]:
    """Returns the free bytes of a folder's disk, and the bytes a second of writing to it."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    size = min(_DISK_BYTES, free // 4)
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            start = time.perf_counter()
            for _ in range(size >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return free, (size >> 20 << 20) / (time.perf_counter() - start)
    except OSError:
        return free, None
