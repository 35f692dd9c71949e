"""Granite 3, dense: what `granitemoe` builds when a file has no experts."""

from moesaic.partitioner.arch import granitemoe
from moesaic.partitioner.arch._builder import Builder, Model


def build(b: Builder) -> Model:
    """Builds the graph."""
    return granitemoe.build(b)
