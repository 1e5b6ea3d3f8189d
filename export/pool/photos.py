"""The photographs to learn from: a folder of them, listed in its SOURCES.tsv, split by source."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from idetex_edge.errors import ExportError

HELD_OUT_SOURCES: Final = ("cid22", "ubuntumate", "lomiri")
"""Sources never trained on: validation is on other photographers' pictures."""

_HELD_OUT_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph; `mos` is a person's mean opinion score 1..5 where there is one."""

    path: Path
    source: str
    mos: float | None
    scored: bool
    held_out: bool

    def holds(self, height: int, width: int) -> bool:
        """Whether so large a crop can be cut out of it."""
        own_width, own_height = _size_of(self.path)
        return own_height >= height and own_width >= width

    def load(self) -> np.ndarray:
        """The picture, RGB uint8 [H, W, 3]."""
        with Image.open(self.path) as picture:
            return np.array(picture.convert("RGB"))


@cache
def _size_of(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone."""
    with Image.open(path) as picture:
        return picture.size


def list_photos(folder: Path) -> list[Photo]:
    """Read `SOURCES.tsv` (columns file, source, mos_0_1) beside the photographs.

    Clean photographs are split by source, human-scored ones by a hash of their names.
    """
    table = folder / "SOURCES.tsv"
    if not table.is_file():
        raise ExportError(f"no SOURCES.tsv in {folder}: list the photographs and sources there")
    photos: list[Photo] = []
    with table.open(newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            name = row["file"]
            scored = name.startswith("scored/")
            draw = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
            held_out = draw < _HELD_OUT_SHARE if scored else row["source"] in HELD_OUT_SOURCES
            mos = 1 + 4 * float(row["mos_0_1"]) if row["mos_0_1"] else None
            photos.append(Photo(folder / name, row["source"], mos, scored, held_out))
    return photos


def clean_photos(photos: Sequence[Photo], held_out: bool) -> list[Photo]:
    """The photographs to distort, of one side of the split."""
    return [p for p in photos if not p.scored and p.held_out == held_out]


def scored_photos(photos: Sequence[Photo], held_out: bool) -> list[Photo]:
    """The photographs that people scored, of one side of the split."""
    return [p for p in photos if p.scored and p.held_out == held_out]
