"""Find the pictures that the command line names: files, folders, patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif", ".bmp", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
    )
)
"""What counts as a picture in a folder; a file named by itself may be called anything."""


@dataclass(frozen=True, slots=True)
class Found:
    """A picture to be read.

    path: as the user would write it. name: its path below the folder that was asked for, else the
    file's name. problem: why there is none, such as an empty folder.
    """

    path: str
    name: Path
    problem: str | None = None


def find_pictures(arguments: Sequence[str]) -> list[Found]:
    """All pictures of files, folders (with the folders in them) and patterns such as `a/**/*.png`.

    Arguments stand in their order, the pictures of each sorted. An argument that is none of these
    is taken for a file that is missing.
    """
    return [found for argument in arguments for found in _find(argument)]


def _find(argument: str) -> Iterator[Found]:
    if Path(argument).is_dir():
        yield from _in_folder(argument)
        return
    matches = [argument]
    if not Path(argument).exists():
        # Path.glob takes no absolute patterns.
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    files = [match for match in matches if not Path(match).is_dir()]
    for path in files or [argument]:
        yield Found(path, Path(Path(path).name))


def _in_folder(folder: str) -> Iterator[Found]:
    problems: list[Found] = []

    def remember(error: OSError) -> None:
        path = str(error.filename)
        problems.append(Found(path, Path(path), f"cannot open {path!r}: {error.strerror}"))

    paths = sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=remember)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
    yield from (Found(str(path), path.relative_to(folder)) for path in paths)
    yield from problems
    if not paths and not problems:
        yield Found(folder, Path(folder), f"there is no picture in {folder!r}; name files instead")
