"""Photographs to calibrate with and to prove parity on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from idetex_edge.errors import ExportError, ImageError
from idetex_edge.image import load_image

MINIMUM: Final = 16
"""Fewer readable pictures than this are too few to calibrate with, or to learn drafts from."""

HELD_OUT: Final = 4
"""Pictures of a folder that parity is proven on, and that calibration never sees."""

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FROM_SKIMAGE: Final = (("astronaut", (448, 448)), ("coffee", (560, 336)), ("rocket", (252, 504)))


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """A picture that is read when it is needed, and its name in reports."""

    name: str
    source: Path | Image.Image

    def load(self) -> Image.Image:
        """Read it as RGB."""
        return self.source if isinstance(self.source, Image.Image) else load_image(self.source)


@dataclass(frozen=True, slots=True)
class Photographs:
    """What a folder gave: pictures to calibrate with, others to prove with, and how many broke."""

    calibration: tuple[Photograph, ...]
    proof: tuple[Photograph, ...]
    broken: int


def photographs(folder: Path | None, most: int) -> Photographs:
    """Find a folder's pictures, at most `most` to calibrate with; None takes scikit-image's three.

    Order is by a hash of the name, so that a folder sorted by subject gives a fair sample; those
    for the proof are taken first. Raises ExportError when the folder is none, holds no pictures, or
    fewer than `MINIMUM` that can be read.
    """
    if folder is None:
        return Photographs((), _from_skimage(), 0)
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; give one of photographs")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise ExportError(f"{folder} holds no pictures; give a folder of photographs")
    found: list[Photograph] = []
    broken = 0
    for path in sorted(paths, key=lambda path: _order(path, folder)):
        if len(found) == most + HELD_OUT:
            break
        try:
            load_image(path)
        except ImageError:
            broken += 1
        else:
            found.append(Photograph(path.relative_to(folder).as_posix(), path))
    if len(found) < MINIMUM:
        raise ExportError(
            f"{folder} holds {len(found)} readable pictures ({broken} are broken), and the fewest "
            f"to learn from are {MINIMUM}; add photographs"
        )
    return Photographs(tuple(found[HELD_OUT:]), tuple(found[:HELD_OUT]), broken)


def _order(path: Path, folder: Path) -> bytes:
    return hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest()


def _from_skimage() -> tuple[Photograph, ...]:
    try:
        from skimage import data
    except ImportError:
        raise ExportError(
            "parity needs photographs: pass --calibration FOLDER or install scikit-image"
        ) from None
    return tuple(
        Photograph(name, Image.fromarray(getattr(data, name)()).resize(size))
        for name, size in _FROM_SKIMAGE
    )
