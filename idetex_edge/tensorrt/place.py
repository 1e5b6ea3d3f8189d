"""Where what is made on this machine is kept: in the user's own place for caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

PLACE: Final = "IDETEX_CACHE"
"""The environment variable that names another place."""


def user_cache() -> Path:
    """The folder that IDETEX_CACHE names, else the user's own; it may not be there yet."""
    place = os.environ.get(PLACE)
    if place is not None:
        return Path(place)
    home = Path.home()
    base = {
        "win32": Path(os.environ.get("LOCALAPPDATA", home)),
        "darwin": home / "Library" / "Caches",
    }.get(sys.platform, Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")))
    return base / "idetex-edge"
