"""``--place 'REGEX=DEVICE'``: nodes that are put where the user says."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesaic.errors import PlacementError
from moesaic.partitioner.machine import CPU

__all__ = ["Pin", "apply_rules", "rule_device"]

_HINT = "write rules like '/layers[.][0-3]/moe/experts=cuda:0'"
_SUGGESTIONS = 3


@dataclass(frozen=True, slots=True)
class Pin:
    """Where a rule puts a node: the device, and the rule as it was written."""

    device: str
    rule: str


def apply_rules(
    rules: Sequence[str], nodes: Sequence[str], devices: Sequence[str]
) -> Mapping[str, Pin]:
    """Returns the nodes that rules place; of several rules the last wins.

    Args:
        rules: Each a regular expression, searched for in node names, ``=``, and a device.
        nodes: Names of all nodes that take part in the program.
        devices: Names of the plan's devices.

    Raises:
        PlacementError: A rule is malformed, matches nothing, or names a device that is not there.
    """
    pins: dict[str, Pin] = {}
    for rule in rules:
        pattern, device = _parse(rule, devices)
        found = [name for name in nodes if pattern.search(name)]
        if not found:
            raise PlacementError(
                f"place: {rule!r} matches no node", hint=_similar(pattern.pattern, nodes)
            )
        pins.update((name, Pin(device, rule)) for name in found)
    return pins


def rule_device(rule: str) -> str:
    """Returns the device that a rule names."""
    device = rule.rpartition("=")[2].strip()
    return "cuda:0" if device == "cuda" else device


def _parse(rule: str, devices: Sequence[str]) -> tuple[re.Pattern[str], str]:
    text, equals, _ = rule.rpartition("=")
    device = rule_device(rule)
    if not equals or not text:
        raise PlacementError(f"place: {rule!r} is not REGEX=DEVICE", hint=_HINT)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise PlacementError(f"place: {rule!r}: {error}", hint=_HINT) from None
    if device not in devices:
        raise PlacementError(
            f"place: {rule!r} names {device or 'no device'}, the plan has {', '.join(devices)}",
            hint="add the device, like --devices cpu,cuda:0=24GiB" if device != CPU else _HINT,
        )
    return pattern, device


def _similar(pattern: str, nodes: Sequence[str]) -> str:
    """Returns a hint with the names that look most like a pattern."""
    plain = re.sub(r"\\(.)", r"\1", pattern)
    close = difflib.get_close_matches(plain, nodes, _SUGGESTIONS, cutoff=0.4)
    names = close or [*dict.fromkeys((nodes[0], nodes[len(nodes) // 2], nodes[-1]))]
    return "there are nodes like " + ", ".join(names)
