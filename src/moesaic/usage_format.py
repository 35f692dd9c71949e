"""The schema of a usage profile: how often each expert of a model was chosen.

``moesaic run --record-usage`` writes it, ``moesaic partition --usage`` reads it. This module
imports neither of the two halves.
"""

from pathlib import Path

import msgspec

from moesaic.errors import PlanError

__all__ = ["FORMAT", "VERSION", "Usage", "read_usage"]

FORMAT = "moesaic-usage"
VERSION = 1


class Usage(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What was counted.

    Attributes:
        format: `FORMAT`.
        version: `VERSION`.
        architecture: The model's family, for the error when a profile of another model is given.
        tokens: Tokens that went through the model.
        experts: By the name of each Experts node, how many tokens chose expert 0, 1, ...
    """

    format: str
    version: int
    architecture: str
    tokens: int
    experts: dict[str, list[int]]


def read_usage(path: Path) -> Usage:
    """Reads a profile, or raises a `PlanError` that names the file and what is wrong with it."""
    try:
        usage = msgspec.json.decode(path.read_bytes(), type=Usage)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise PlanError(
            f"{path}: not a usage profile: {error}",
            hint="record one with `moesaic run PLAN --record-usage usage.json`",
        ) from None
    if (usage.format, usage.version) != (FORMAT, VERSION):
        raise PlanError(
            f"{path}: is {usage.format!r} version {usage.version}, expected {FORMAT!r} {VERSION}"
        )
    if usage.tokens < 1 or any(min(row, default=-1) < 0 for row in usage.experts.values()):
        raise PlanError(f"{path}: counts must not be negative or missing")
    return usage
