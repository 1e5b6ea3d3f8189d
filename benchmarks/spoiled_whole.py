"""Photographs spoiled whole, by every cause of every distortion, for what measures them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image

from benchmarks.build_benchmark import list_photographs
from export.distortions.causes import CAUSES, Cause
from export.distortions.chance import Chance
from export.distortions.pictures import to_picture, to_tensor
from idetex_edge.image import load_image

_LONGER_SIDE: Final = 504
_SOLID: Final = "Meaningless solid color"
"""Left out: over the whole picture nothing would be left of it."""

WHOLE_CAUSES: Final = tuple(cause for cause in CAUSES if cause.distortion != _SOLID)


def choose(photos: Path, pictures: int, seed: int) -> list[Path]:
    """So many of the photographs that `build_benchmark.py` takes, the same by the same seed."""
    photographs = list_photographs(photos)
    chosen = Random(seed).sample(photographs, min(pictures, len(photographs)))
    return [photograph.path for photograph in chosen]


def open_small(path: Path) -> Image.Image:
    """A photograph, no longer than 504 pixels."""
    picture = load_image(path)
    picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
    return picture


def by_every_cause(photograph: Image.Image, seed: int) -> Iterator[tuple[Cause, list[Image.Image]]]:
    """Each cause, and the photograph spoiled by the middle of its range for every severity."""
    clean = to_tensor(photograph)
    for cause in WHOLE_CAUSES:
        strengths = (sum(span) / 2 for span in cause.ranges)
        yield cause, [to_picture(cause.apply(clean, s, Chance(seed))) for s in strengths]
