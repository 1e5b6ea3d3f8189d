"""Repair a picture only where that helps: assess, restore what was found, assess again.

    python examples/restoration_gate.py photo.jpg --output restored.png

The repairs are Pillow's simplest, to keep the example short; put a restoration network in their
place. Each is tried alone, and kept when the score rises by more than `--gain` points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from PIL import Image, ImageEnhance, ImageFilter

from idetex_edge import Assessor
from idetex_edge.image import load_image
from idetex_edge.overlay import save_image_atomically

Repair = Callable[[Image.Image], Image.Image]


def brighter(picture: Image.Image) -> Image.Image:
    """Lift the shadows."""
    return picture.point([round(255 * (value / 255) ** 0.5) for value in range(256)] * 3)


def darker(picture: Image.Image) -> Image.Image:
    """Bring highlights down."""
    return ImageEnhance.Brightness(picture).enhance(0.75)


REPAIRS: Final[Mapping[str, Repair]] = {
    "Noise": lambda picture: picture.filter(ImageFilter.MedianFilter(3)),
    "Blocking artifacts": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "Edge ringing effect": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.7)),
    "Low clarity": lambda picture: picture.filter(ImageFilter.UnsharpMask(2, 120, 2)),
    "Out of focus blur": lambda picture: picture.filter(ImageFilter.UnsharpMask(3, 150, 2)),
    "Motion blur": lambda picture: picture.filter(ImageFilter.UnsharpMask(3, 150, 2)),
    "Underexposure": brighter,
    "Overexposure": darker,
}
"""A repair for each distortion that has one."""


def main(
    photo: Path,
    output: Annotated[Path, typer.Option(help="Where the restored picture goes.")] = Path(
        "restored.png"
    ),
    gain: Annotated[float, typer.Option(help="Points of 100 that a repair must bring.")] = 1.0,
    bundle: str | None = None,
) -> None:
    """Restore a photograph as far as its score says that it gets better."""
    assessor = Assessor(bundle)
    picture = load_image(photo)
    seen = assessor.encode(picture)
    before = best = assessor.score(seen).score
    for kind in dict.fromkeys(found.type for found in assessor.ground(seen)):
        if kind not in REPAIRS:
            print(f"{kind}: nothing to be done")
            continue
        tried = REPAIRS[kind](picture)
        after = assessor.score(tried).score
        kept = after > best + gain
        print(f"{kind}: {best:.1f} -> {after:.1f}, {'kept' if kept else 'left as it was'}")
        if kept:
            picture, best = tried, after
    save_image_atomically(picture, output)
    print(f"{before:.1f} -> {best:.1f}, written to {output}")


if __name__ == "__main__":
    typer.run(main)
