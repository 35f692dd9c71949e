"""The machine's measured speed: what ``moesaic doctor`` writes and planning reads.

The file is in the cache folder and names the machine it was measured on; on another machine, or
with other cores, it is as good as none. This module imports neither of the two halves.
"""

import os
import platform
from pathlib import Path

import msgspec

from moesaic.cache import cache_folder
from moesaic.plan_format import Facts
from moesaic.replace import replace_files
from moesaic.small_file import read_small

__all__ = ["Machine", "MachineFacts", "facts_path", "read_facts", "this_machine", "write_facts"]

VERSION = 1
MAX_BYTES = 1 << 20
_FLAGS = ("avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


class Machine(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What tells machines apart, as far as speed is concerned.

    Attributes:
        cpu: Model name of the processor.
        cores: Cores that the process may use.
        memory: Bytes of main memory.
        flags: Those of its instruction sets that kernels are, or could be, written for.
        forced_isa: `$MOESAIC_FORCE_ISA`, or empty.
    """

    cpu: str
    cores: int
    memory: int
    flags: list[str]
    forced_isa: str = ""


class MachineFacts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The cached file: a machine and the speed of its devices by name."""

    version: int
    machine: Machine
    devices: dict[str, Facts]


def this_machine(cores: int) -> Machine:
    """Returns what identifies this machine.

    Args:
        cores: Cores that the process may use, as both native modules count them.
    """
    name, flags = _cpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(name, cores, memory, flags, os.environ.get("MOESAIC_FORCE_ISA", ""))


def facts_path() -> Path:
    """Returns where the facts are kept."""
    return cache_folder() / "machine.json"


def read_facts(cores: int) -> dict[str, Facts]:
    """Returns the measured speed of this machine's devices by name, empty if there is none.

    Facts are only a cache: a file that is damaged, of another version or of another machine counts
    as none.
    """
    try:
        found = msgspec.json.decode(read_small(facts_path(), MAX_BYTES), type=MachineFacts)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    usable = found.version == VERSION and found.machine == this_machine(cores)
    return found.devices if usable and all(map(_plausible, found.devices.values())) else {}


def write_facts(machine: Machine, devices: dict[str, Facts]) -> Path:
    """Writes the facts of a machine, in place of older ones; returns the file's path."""
    path = facts_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(MachineFacts(VERSION, machine, devices)))
    replace_files({path: data + b"\n"})
    return path


def _plausible(facts: Facts) -> bool:
    """Whether times computed from these facts are positive and finite."""
    rates = (facts.read_bandwidth, facts.int8_rate, facts.float_rate)
    return all(1.0 < rate < 1e18 for rate in rates) and 0 <= facts.latency < 1


def _cpu() -> tuple[str, list[str]]:
    """Returns the processor's name and those of its instruction sets that matter."""
    fields: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    known = set(fields.get("flags", "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, [flag for flag in _FLAGS if flag in known]
