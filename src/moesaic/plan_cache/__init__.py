"""Plans of model files in the user's cache folder, so that a model file opens like a plan."""

from moesaic.plan_cache.entries import Entry, entries, find, plans_folder, remove
from moesaic.plan_cache.lookup import CachedPlan, Wishes, cached_plan

__all__ = [
    "CachedPlan",
    "Entry",
    "Wishes",
    "cached_plan",
    "entries",
    "find",
    "plans_folder",
    "remove",
]
