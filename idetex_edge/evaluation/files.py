"""JSON files that are either whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

from idetex_edge.errors import OutputError


def write_json(path: Path, data: object) -> None:
    """Write beside the place and put it there when whole; raises OutputError when it cannot."""
    partial = path.with_name(f".{path.name}.partial")
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; give another --output") from None
