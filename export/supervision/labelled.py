"""Pictures as they are found, with what people or other models said of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from export.distortions.compose import Truth
from export.supervision.example import Example
from idetex_edge.image import orientation_of
from idetex_edge.vocabulary import BOX_SCALE

_BOX: Final = re.compile(r"\((\d+),(\d+)\),\((\d+),(\d+)\)")
_SIDES: Final[Mapping[str, str]] = {
    "left": "right",
    "right": "left",
    "Left": "Right",
    "Right": "Left",
}
_SIDE: Final = re.compile(rf"\b({'|'.join(_SIDES)})\b")
_LYING: Final = range(5, 9)
"""EXIF orientations of pictures that are turned by a quarter before they are seen."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture on disk and questions about it with their answers.

    truths: all that is wrong with it and where, None where nobody said.
    """

    path: Path
    examples: tuple[Example, ...]
    truths: tuple[Truth, ...] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright picture, from the file's header."""
        with Image.open(self.path) as picture:
            width, height = picture.size
            lying = orientation_of(picture) in _LYING
        return (height, width) if lying else (width, height)


def mirrored(examples: Sequence[Example]) -> list[Example]:
    """The same about the picture mirrored left to right: boxes and words for sides move along."""
    return [
        replace(
            example,
            answer=_mirrored(example.answer),
            fields={name: _mirrored(text) for name, text in example.fields.items()},
        )
        for example in examples
    ]


def _mirrored(text: str) -> str:
    def box(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = (int(number) for number in match.groups())
        return f"({BOX_SCALE - x2},{y1}),({BOX_SCALE - x1},{y2})"

    return _SIDE.sub(lambda match: _SIDES[match[1]], _BOX.sub(box, text))
