"""Commands that a benchmark runs beside itself."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def last_words(command: Sequence[str]) -> str | None:
    """Run a command in the repository: its last line of complaint, None where it ends well."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not ran.returncode:
        return None
    return (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
