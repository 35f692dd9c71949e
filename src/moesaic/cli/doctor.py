"""``moesaic doctor``: what this machine has, how fast it is, and what is missing."""

from typing import Annotated

import typer

from moesaic.cli._render import errors_as_messages, note, print_facts, print_json, size

__all__ = ["doctor"]


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure this machine's speed, which planning then uses, and say what is missing."""
    from moesaic.doctor import diagnose

    with errors_as_messages():
        note("measuring, this takes a few seconds")
        found = diagnose()
        if as_json:
            print_json(found)
            return
        facts, machine = found.facts, found.machine
        quota = "no quota" if found.quota is None else f"quota {found.quota:g}"
        memory = f"{size(machine.memory)}, {size(found.memory_available)} available"
        speed = (
            "not writable"
            if found.disk_write is None
            else f"{found.disk_write / 1e9:.2f} GB/s of writing"
        )
        print_facts(
            [
                ("cpu", f"{machine.cpu}: {machine.cores} of {found.cores} cores, {quota}"),
                ("kernels", f"{found.isa}, of {', '.join(found.isas)}"),
                ("memory", memory),
                ("reading", f"{facts.read_bandwidth / 1e9:.1f} GB/s"),
                ("int8 kernels", f"{facts.int8_rate / 1e9:.0f} GOP/s"),
                ("float kernels", f"{facts.float_rate / 1e9:.0f} GOP/s"),
                ("waking threads", f"{facts.latency * 1e6:.1f} µs"),
                ("cache folder", f"{found.cache}: {size(found.disk_free)} free, {speed}"),
                ("speeds kept in", found.facts_file or "nothing, the folder cannot be written"),
                *((f"! {advice.what}", advice.matters) for advice in found.advice),
            ]
        )
