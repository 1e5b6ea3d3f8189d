"""Draw what was found onto the picture, and save pictures without ever leaving half a file."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from idetex_edge.errors import OutputError
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

if TYPE_CHECKING:
    from idetex_edge.results import Box, Distortion

Colour: TypeAlias = tuple[int, int, int]

COLOURS: Final[dict[str, Colour]] = {
    "Low clarity": (63, 144, 218),
    "Edge aliasing effect": (146, 218, 221),
    "Blocking artifacts": (189, 31, 1),
    "Underexposure": (131, 45, 182),
    "Overexposure": (255, 169, 14),
    "Out of focus blur": (231, 99, 0),
    "Motion blur": (169, 107, 89),
    "Noise": (185, 172, 112),
    "Meaningless solid color": (113, 117, 129),
    "Edge ringing effect": (148, 164, 162),
}
"""A colour for each type, told apart with any colour vision (Petroff, arXiv 2107.02270)."""

_INK: Final[Colour] = (28, 32, 38)
_FAINT: Final[Colour] = (206, 210, 216)
_PAPER: Final[Colour] = (248, 249, 250)
_WHITE: Final[Colour] = (255, 255, 255)
_SMALLEST: Final = 400
_SMOOTHING: Final = 4


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels that go with a picture: of lines, their rims, text and space around it."""

    line: int
    rim: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    text: int
    pad: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> _Style:
        side = (size[0] * size[1]) ** 0.5
        text = max(12, round(side * 0.023))
        line = max(2, round(side * 0.0032))
        return cls(line, max(1, line // 3), ImageFont.load_default(text), text, max(3, text // 4))

    def width(self, words: str) -> int:
        return round(self.font.getlength(words))

    @property
    def row(self) -> int:
        return self.text + 2 * self.pad

    def line_of(self, severity: str) -> int:
        return 2 * self.line if severity == SEVERITIES[2] else self.line


def draw_overlay(
    image: Image.Image,
    distortions: Sequence[Distortion],
    *,
    score: float | None = None,
    level: str | None = None,
) -> Image.Image:
    """Draw boxes and labels onto an RGB picture, and a legend on a strip below it.

    Colours tell types apart; lines are dashed for minor, thick for severe distortions. Boxes come
    from `box_1000`, so the picture may be another size than the assessed one. `score` is 0..100.
    Pictures under 400 pixels are enlarged by a whole number. Returns a new RGB image, its legend
    included, at least 400 pixels wide; `image` is not changed.
    """
    enlarge = max(1, -(-_SMALLEST // max(image.size)))
    picture = image.resize(
        (image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST
    )
    style = _Style.of(picture.size)
    # Small boxes lie on top of large ones and choose the place of their labels first.
    placed = [found.placed(*picture.size) for found in distortions]
    placed.sort(key=lambda found: -_area(_pixels(found)))
    frames: list[Box] = []
    draw = ImageDraw.Draw(picture)
    for found in placed:
        frame = _beside(_pixels(found), frames, 2 * (style.line + style.rim))
        frames.append(frame)
        _draw_frame(draw, frame, found, style)
    _draw_labels(picture, list(zip(placed, frames, strict=True))[::-1], style)

    strip = _flow(
        list(_legend(distortions, score, level, style)), max(picture.width, _SMALLEST), style
    )
    canvas = Image.new("RGB", (strip.width, picture.height + strip.height), _PAPER)
    canvas.paste(picture, ((strip.width - picture.width) // 2, 0))
    canvas.paste(strip, (0, picture.height))
    return canvas


def _pixels(found: Distortion) -> Box:
    assert found.box is not None
    return found.box


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _common(left: Box, right: Box) -> int:
    return _area(
        (
            max(left[0], right[0]),
            max(left[1], right[1]),
            min(left[2], right[2]),
            min(left[3], right[3]),
        )
    )


def _beside(box: Box, taken: Iterable[Box], step: int) -> Box:
    """Shrink a box until none of the earlier ones hides it."""
    for other in taken:
        close = all(abs(a - b) < step for a, b in zip(box, other, strict=True))
        if close and min(box[2] - box[0], box[3] - box[1]) > 4 * step:
            box = (other[0] + step, other[1] + step, other[2] - step, other[3] - step)
    return box


def _contrast(colour: Colour) -> Colour:
    """Choose ink or white, whichever stands out more (relative luminance of WCAG 2)."""
    parts = [value / 255 for value in colour]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return _INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.21 else _WHITE


def _draw_frame(draw: ImageDraw.ImageDraw, box: Box, found: Distortion, style: _Style) -> None:
    colour = COLOURS[found.type]
    line = min(style.line_of(found.severity), max(1, min(box[2] - box[0], box[3] - box[1]) // 2))
    bars = _bars(box, line, dashed=found.severity == SEVERITIES[0])
    for x1, y1, x2, y2 in bars:
        rim = style.rim
        draw.rectangle((x1 - rim, y1 - rim, x2 - 1 + rim, y2 - 1 + rim), fill=_contrast(colour))
    for x1, y1, x2, y2 in bars:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)


def _bars(box: Box, line: int, *, dashed: bool) -> list[Box]:
    x1, y1, x2, y2 = box
    across, down = _dashes(x1, x2, line, dashed=dashed), _dashes(y1, y2, line, dashed=dashed)
    return [
        *((start, y, end, y + line) for y in (y1, y2 - line) for start, end in across),
        *((x, start, x + line, end) for x in (x1, x2 - line) for start, end in down),
    ]


def _dashes(start: int, end: int, line: int, *, dashed: bool) -> list[tuple[int, int]]:
    """Split a span into dashes and gaps of about five line widths, with a dash at either end."""
    count = 2 * max(1, round((end - start) / (10 * line))) + 1 if dashed else 1
    edges = [start + (end - start) * i // count for i in range(count + 1)]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def _draw_labels(
    picture: Image.Image, found: Sequence[tuple[Distortion, Box]], style: _Style
) -> None:
    taken: list[Box] = []
    for distortion, frame in found:
        for words in (f"{distortion.type} · {distortion.severity}", distortion.type):
            width, height = style.width(words) + 4 * style.pad, style.row
            if width <= picture.width and height <= picture.height // 2:
                place = min(
                    _places(frame, width, height, picture.size),
                    key=lambda place: sum(_common(place, other) for other in taken),
                )
                taken.append(place)
                _draw_chip(picture, place, words, COLOURS[distortion.type], style)
                break


def _places(frame: Box, width: int, height: int, size: tuple[int, int]) -> Iterator[Box]:
    """Yield where a label may stand, best first: at corners of its box, then down its left side."""
    x1, y1, x2, y2 = frame
    corners = [
        (x, y)
        for x in (x1, x2 - width)
        for y in (y1 - height, y1, y2, y2 - height)
        if 0 <= x <= size[0] - width and 0 <= y <= size[1] - height
    ]
    down = [(x, y) for x in (x1, x2 - width) for y in range(y1, size[1] - height, height)]
    for x, y in corners + down or [(x1, y1)]:
        left = min(max(x, 0), size[0] - width)
        top = min(max(y, 0), size[1] - height)
        yield left, top, left + width, top + height


def _draw_chip(picture: Image.Image, place: Box, words: str, colour: Colour, style: _Style) -> None:
    size = (place[2] - place[0], place[3] - place[1])
    mask = Image.new("L", (size[0] * _SMOOTHING, size[1] * _SMOOTHING))
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, mask.width - 1, mask.height - 1), style.pad * _SMOOTHING, fill=255
    )
    picture.paste(colour, place, mask.reduce(_SMOOTHING))
    ImageDraw.Draw(picture).text(
        (place[0] + 2 * style.pad, (place[1] + place[3]) // 2),
        words,
        fill=_contrast(colour),
        font=style.font,
        anchor="lm",
    )


def _legend(
    distortions: Sequence[Distortion], score: float | None, level: str | None, style: _Style
) -> Iterator[Image.Image]:
    """Yield the legend's entries, each a small picture of one row's height."""
    if score is not None:
        yield _gauge(score, style)
    verdict = [] if score is None else [f"{score:.0f} / 100"]
    if level is not None:
        verdict.append(level)
    if verdict:
        yield _entry(style, 0, " · ".join(verdict))[0]
    counts = Counter(found.type for found in distortions)
    for kind in DISTORTIONS:
        if count := counts[kind]:
            side = style.text
            entry, draw = _entry(style, side, kind if count == 1 else f"{kind} ({count})")
            top = (style.row - side) // 2
            draw.rounded_rectangle(
                (0, top, side - 1, top + side - 1), side // 5, COLOURS[kind], _INK
            )
            yield entry
    if distortions:
        severities = {found.severity for found in distortions}
        yield _row([_line_sample(name, style) for name in SEVERITIES if name in severities], style)
    else:
        yield _entry(style, 0, "No distortion found")[0]


def _line_sample(severity: str, style: _Style) -> Image.Image:
    width, line = 3 * style.text, style.line_of(severity)
    entry, draw = _entry(style, width, severity)
    top = (style.row - line) // 2
    for start, end in _dashes(0, width, line, dashed=severity == SEVERITIES[0]):
        draw.rectangle((start, top, end - 1, top + line - 1), fill=_INK)
    return entry


def _entry(style: _Style, symbol: int, words: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Make an entry with room for a symbol of some width in front of the words."""
    left = symbol + style.pad * 2 if symbol else 0
    entry = Image.new("RGB", (left + style.width(words) + 1, style.row), _PAPER)
    draw = ImageDraw.Draw(entry)
    draw.text((left, style.row // 2), words, fill=_INK, font=style.font, anchor="lm")
    return entry, draw


def _gauge(score: float, style: _Style) -> Image.Image:
    width, height = 8 * style.text, max(4, style.text // 2)
    bar = Image.new("RGB", (width * _SMOOTHING, height * _SMOOTHING), _PAPER)
    draw = ImageDraw.Draw(bar)
    radius = bar.height // 2
    draw.rounded_rectangle((0, 0, bar.width - 1, bar.height - 1), radius, _FAINT)
    end = max(bar.height, round(bar.width * min(max(score, 0.0), 100.0) / 100))
    draw.rounded_rectangle((0, 0, end - 1, bar.height - 1), radius, _INK)
    entry = Image.new("RGB", (width, style.row), _PAPER)
    entry.paste(bar.reduce(_SMOOTHING), (0, (style.row - height) // 2))
    return entry


def _row(entries: Sequence[Image.Image], style: _Style) -> Image.Image:
    gap = 4 * style.pad
    row = Image.new("RGB", (sum(entry.width + gap for entry in entries) - gap, style.row), _PAPER)
    x = 0
    for entry in entries:
        row.paste(entry, (x, 0))
        x += entry.width + gap
    return row


def _flow(entries: Sequence[Image.Image], width: int, style: _Style) -> Image.Image:
    """Lay entries out in rows, as many as it takes; widen the strip for an entry too wide."""
    margin, gap = 2 * style.pad, 4 * style.pad
    width = max(width, 2 * margin + max(entry.width for entry in entries))
    places: list[tuple[int, int]] = []
    x, y = margin, margin
    for entry in entries:
        if x > margin and x + entry.width > width - margin:
            x, y = margin, y + style.row
        places.append((x, y))
        x += entry.width + gap
    strip = Image.new("RGB", (width, y + style.row + margin), _PAPER)
    for entry, place in zip(entries, places, strict=True):
        strip.paste(entry, place)
    return strip


def save_image_atomically(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format that the file's extension names, all of it or nothing.

    It is written beside the target and moved there when complete; what stood there stays until
    then. Raises OutputError when the extension is unknown or the target cannot be written.
    """
    name, suffix = repr(os.fspath(path)), Path(path).suffix.lower()
    file_format = Image.registered_extensions().get(suffix)
    if file_format is None or file_format not in Image.SAVE:
        raise OutputError(
            f"cannot write {name}: {suffix!r} is no picture format; "
            "end the name in .png, .jpg or .webp"
        )
    try:
        target = Path(os.path.realpath(path))
        temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as stream:
                image.save(stream, file_format)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:  # encoders meet pictures that they cannot hold with any error
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(
            f"cannot write {name}: {' '.join(reason.split())}; choose another place or format"
        ) from error
