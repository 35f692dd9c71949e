"""Turns a graph and a placement into the program that the runtime executes."""

from moesaic.partitioner.lowering.lower import lower
from moesaic.partitioner.lowering.program import Program, Value, reserved

__all__ = ["Program", "Value", "lower", "reserved"]
