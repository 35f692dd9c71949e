"""How likely each expert is to be chosen, from a recorded usage profile."""

import os
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from moesaic.errors import PlanError
from moesaic.usage_format import Usage

__all__ = ["check_usage", "expert_odds"]

_HINT = "record a profile of this model: `moesaic run PLAN --record-usage usage.json`"


def check_usage(
    usage: Usage,
    architecture: str,
    experts: Mapping[str, int],
    path: str | os.PathLike[str] | None = None,
) -> None:
    """Checks that a profile is one of this model.

    Args:
        usage: The profile.
        architecture: The model's family.
        experts: Number of experts by the name of each Experts node.
        path: The profile's file, for the message.

    Raises:
        PlanError: The family, a node or a number of experts is another; it names file and field.
    """
    where = f"{path or 'usage'}: "
    if usage.architecture != architecture:
        raise PlanError(
            f"{where}architecture: the profile is of {usage.architecture!r}, the model is "
            f"{architecture!r}",
            hint=_HINT,
        )
    for name in experts.keys() ^ usage.experts.keys():
        here, there = ("profile", "model") if name in experts else ("model", "profile")
        raise PlanError(
            f"{where}experts: the {here} lacks {name!r}, which the {there} has", hint=_HINT
        )
    for name, count in experts.items():
        if len(usage.experts[name]) != count:
            raise PlanError(
                f"{where}experts: {name!r} has {len(usage.experts[name])} counts, the model has "
                f"{count} experts there",
                hint=_HINT,
            )
        if min(usage.experts[name]) < 0:
            raise PlanError(f"{where}experts: {name!r} has negative counts", hint=_HINT)


def expert_odds(nodes: Iterable[ir.Node], usage: Usage) -> dict[str, list[float]]:
    """Returns the expected number of a token's choices of each expert, by Experts node.

    One choice more than was counted is assumed of each expert, so that one that was never seen is
    unlikely, not impossible.
    """
    odds = {}
    for node in nodes:
        if node.op_type == "Experts":
            counts = [count + 1 for count in usage.experts[str(node.name)]]
            used = node.attributes["used"].value
            odds[str(node.name)] = [used * count / sum(counts) for count in counts]
    return odds
