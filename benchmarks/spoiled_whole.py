"""Photographs spoiled whole, by every cause of every distortion, for what measures them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Annotated, Final

import typer
from PIL import Image

from benchmarks.build_benchmark import list_photographs
from export.distortions.causes import CAUSES, Cause
from export.distortions.chance import Chance
from export.distortions.pictures import to_picture, to_tensor
from idetex_edge.cli.stages import showing_stages
from idetex_edge.image import load_image

_LONGER_SIDE: Final = 504
_SOLID: Final = "Meaningless solid color"
"""Left out: over the whole picture nothing would be left of it."""

Photos = Annotated[Path, typer.Option(help="Folder of photographs.")]
Pictures = Annotated[int, typer.Option(min=1, help="How many of them to spoil.")]
Seed = Annotated[int, typer.Option(min=0, help="Which ones.")]
Out = Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")]

WHOLE_CAUSES: Final = tuple(cause for cause in CAUSES if cause.distortion != _SOLID)


def choose(photos: Path, pictures: int, seed: int) -> list[Path]:
    """So many of the photographs that `build_benchmark.py` takes, the same by the same seed."""
    photographs = list_photographs(photos)
    chosen = Random(seed).sample(photographs, min(pictures, len(photographs)))
    return [photograph.path for photograph in chosen]


def one_by_one(chosen: list[Path], seed: int) -> Iterator[tuple[Image.Image, int]]:
    """Each photograph, no longer than 504 pixels, with a seed of its own; shows progress."""
    with showing_stages() as advance:
        for done, path in enumerate(chosen):
            advance("spoiling", done, len(chosen))
            picture = load_image(path)
            picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
            yield picture, seed + done
        advance("spoiling", len(chosen), len(chosen))


def by_every_cause(photograph: Image.Image, seed: int) -> Iterator[tuple[Cause, list[Image.Image]]]:
    """Each cause, and the photograph spoiled by the middle of its range for every severity."""
    clean = to_tensor(photograph)
    for cause in WHOLE_CAUSES:
        strengths = (sum(span) / 2 for span in cause.ranges)
        yield cause, [to_picture(cause.apply(clean, s, Chance(seed))) for s in strengths]
