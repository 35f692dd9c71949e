"""Writes plan directories: strips, `plan.json`, the graph."""
