"""Chooses a device for every node.

Without budgets a rule decides: experts on the host, everything else on the GPU. With budgets GPUs
are filled along a chain of moves as far as memory reaches and the cost model sees no loss.
"""

from moesaic.partitioner.assign.assign import assign
from moesaic.partitioner.assign.problem import Problem
from moesaic.partitioner.assign.usage import check_usage
from moesaic.partitioner.placement import Placement

__all__ = ["Placement", "Problem", "assign", "check_usage"]
