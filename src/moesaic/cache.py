"""The user's cache folder: plans made from model files, and what was measured of this machine."""

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Returns the folder, which may not exist yet.

    It is `$MOESAIC_CACHE`, or else `moesaic` in the platform's cache folder (`~/.cache`).
    """
    chosen = os.environ.get("MOESAIC_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("moesaic")
