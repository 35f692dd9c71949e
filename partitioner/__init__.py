"""Turns a GGUF model file into a plan directory."""

from moesaic.partitioner.api import partition
from moesaic.partitioner.plan.opened import Plan

__all__ = ["Plan", "partition"]
