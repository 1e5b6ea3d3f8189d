"""An environment with nothing but the wheel and what the wheel depends on, made offline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WHEEL = "idetex-edge"


def bare_site(folder: Path) -> Path:
    """Link the package and its dependencies' files, and no others, into a new folder."""
    folder.mkdir()
    (folder / "idetex_edge").symlink_to(ROOT / "idetex_edge")
    for found in _closure(WHEEL, set()):
        for file in found.files or []:
            # A package is linked as a whole; what lies outside (commands) is not imported.
            name = file.parts[0]
            if name != ".." and not (folder / name).is_symlink():
                (folder / name).symlink_to(Path(str(found.locate_file(name))))
    return folder


def run_bare(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run this Python without its own site-packages, in a folder from which nothing is imported."""
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        env={"PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def _closure(name: str, seen: set[str]) -> Iterator[Distribution]:
    """Give a distribution and all that it needs here, extras left out."""
    if name in seen:
        return
    seen.add(name)
    found = distribution(name)
    if name != WHEEL:
        yield found
    for text in found.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _closure(requirement.name, seen)
