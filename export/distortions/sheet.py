"""Contact sheets: every cause at every severity, and composed pictures with their boxes."""

from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageDraw

from export.distortions.causes import CAUSES
from export.distortions.chance import Chance
from export.distortions.compose import spoil
from export.distortions.pictures import to_picture, to_tensor
from idetex_edge.errors import ExportError
from idetex_edge.vocabulary import BOX_SCALE, DISTORTIONS, SEVERITIES

_CELL: Final = 256
_COMPOSED: Final = 12
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def cause_sheet(photos: list[Path], distortion: str, cell: int = _CELL) -> Image.Image:
    """One distortion: a row for each of its causes; the clean crop, then the three severities."""
    rows = [cause for cause in CAUSES if cause.distortion == distortion]
    sheet = Image.new("RGB", (cell * 4, (cell + 14) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, cause in enumerate(rows):
        picture = Image.open(photos[row % len(photos)]).convert("RGB")
        left, top = (picture.width - cell) // 2, (picture.height - cell) // 2
        clean = to_tensor(picture.crop((left, top, left + cell, top + cell)))
        y = row * (cell + 14)
        draw.text((4, y), f"{cause.distortion}: {cause.name}", fill="black")
        sheet.paste(to_picture(clean), (0, y + 14))
        for severity in range(len(SEVERITIES)):
            strength = sum(cause.ranges[severity]) / 2
            spoiled = cause.apply(clean, strength, Chance(row))
            sheet.paste(to_picture(spoiled), ((severity + 1) * cell, y + 14))
    return sheet


def composed_sheet(photos: list[Path], seed: int, columns: int = 4) -> Image.Image:
    """Spoiled pictures as they are trained on, with the true boxes and names drawn in."""
    cell = 360
    sheet = Image.new("RGB", (cell * columns, cell * -(-len(photos) // columns)), "white")
    for index, path in enumerate(photos):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((cell, cell))
        spoiled = spoil(to_tensor(picture), seed + index)
        drawn = to_picture(spoiled.image)
        draw = ImageDraw.Draw(drawn)
        for line, truth in enumerate(spoiled.truths):
            x1, y1, x2, y2 = truth.box
            scale_x, scale_y = drawn.width / BOX_SCALE, drawn.height / BOX_SCALE
            draw.rectangle((x1 * scale_x, y1 * scale_y, x2 * scale_x - 1, y2 * scale_y - 1))
            text = f"{truth.severity} {truth.type} ({truth.cause})"
            draw.text((4, 4 + 12 * line), text, fill="white", stroke_fill="black", stroke_width=2)
        sheet.paste(drawn, (index % columns * cell, index // columns * cell))
    return sheet


def write_sheets(photos: Path, output: Path, seed: int) -> list[Path]:
    """Write a sheet for each distortion and one of composed pictures; returns their paths.

    Raises ExportError when the folder holds too few photographs of 256 px and more.
    """
    found = [p for p in sorted(photos.rglob("*")) if p.suffix.lower() in _SUFFIXES]
    Random(seed).shuffle(found)
    large: list[Path] = []
    for path in found:
        with Image.open(path) as picture:
            if min(picture.size) >= _CELL:
                large.append(path)
        if len(large) == _COMPOSED:
            break
    if len(large) < _COMPOSED:
        raise ExportError(
            f"{photos} holds {len(large)} photographs of {_CELL} px or more; give {_COMPOSED}"
        )
    output.mkdir(parents=True, exist_ok=True)
    sheets = {d.lower().replace(" ", "_"): cause_sheet(large, d) for d in DISTORTIONS}
    sheets["composed"] = composed_sheet(large, seed)
    paths = [output / f"{name}.png" for name in sheets]
    for path, drawn in zip(paths, sheets.values(), strict=True):
        drawn.save(path)
    return paths
