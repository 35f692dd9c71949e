"""``--place 'REGEX=DEVICE'``: nodes that are put where the user says."""

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moesaic.errors import PlacementError
from moesaic.partitioner.machine import CPU

__all__ = ["Pin", "apply_rules", "rule_device"]

_HINT = "write rules like '/layers[.][0-3]/moe/experts=cuda:0'"
_SUGGESTIONS = 3
MOST_SECONDS = 20.0
"""A rule that takes longer is refused: plans hold rules, and anybody may have written a plan."""

_CHOICES = re.compile(r"[*+?{|]")
_SEARCH = """\
import json, re, sys
pattern, nodes = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([name for name in nodes if search(name)], sys.stdout)
"""


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
        found = _search(rule, pattern, nodes)
        if not found:
            raise PlacementError(
                f"place: {rule!r} matches no node", hint=_similar(pattern.pattern, nodes)
            )
        pins.update((name, Pin(device, rule)) for name in found)
    return pins


def _search(rule: str, pattern: re.Pattern[str], nodes: Sequence[str]) -> list[str]:
    """Returns the nodes that a pattern is found in.

    One choice at most, and time is short. With more it may be exponential, as with ``(a+)+!``, and
    nothing but the end of the process stops a search: it gets one of its own.
    """
    if len(_CHOICES.findall(pattern.pattern)) < 2:
        return [name for name in nodes if pattern.search(name)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=json.dumps([pattern.pattern, list(nodes)]),
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:
        raise PlacementError(
            f"place: {rule!r}: the search takes more than {MOST_SECONDS:g} s",
            hint="repeat nothing that has a repetition in it, such as (a+)+",
        ) from None
    found: list[str] = json.loads(done.stdout)
    return found


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
    except (re.error, OverflowError, RecursionError) as error:
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
