"""The operator table: everything the project knows about an operator, in one entry each."""

from moesaic.partitioner.ops.operator import DOMAIN, Load, Node, Operator, Work
from moesaic.partitioner.ops.table import EXPERT_ROLES, OPERATORS

__all__ = ["DOMAIN", "EXPERT_ROLES", "OPERATORS", "Load", "Node", "Operator", "Work"]
