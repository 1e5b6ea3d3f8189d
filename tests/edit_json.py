"""Change a JSON file as a table of edits says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

REMOVE: Final = object()
"""As a value: take the key away."""


def edit_json(path: Path, edits: Mapping[tuple[str, ...], object]) -> None:
    """Set or remove what each path of keys leads to."""
    data: dict[str, Any] = json.loads(path.read_text())
    for (*parents, key), value in edits.items():
        place = data
        for parent in parents:
            place = place[parent]
        if value is REMOVE:
            del place[key]
        else:
            place[key] = value
    path.write_text(json.dumps(data))
