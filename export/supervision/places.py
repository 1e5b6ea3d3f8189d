"""Words for where a box is."""

from random import Random
from typing import Final

from export.supervision.truths import Box, area_of
from export.supervision.wording import worded
from idetex_edge.vocabulary import BOX_SCALE

_NAMES: Final = {
    "whole": ("entire image", "whole image", "entire scene"),
    "upper": ("upper part of the image", "top of the image", "upper half of the image"),
    "lower": ("lower part of the image", "bottom of the image", "lower half of the image"),
    "left": ("left side of the image", "left part of the image", "left half of the image"),
    "right": ("right side of the image", "right part of the image", "right half of the image"),
    "center": ("center of the image", "central part of the image", "middle of the image"),
    "upper left": ("upper-left part of the image", "upper-left corner", "top-left of the image"),
    "upper right": (
        "upper-right part of the image",
        "upper-right corner",
        "top-right of the image",
    ),
    "lower left": (
        "lower-left part of the image",
        "lower-left corner",
        "bottom-left of the image",
    ),
    "lower right": (
        "lower-right part of the image",
        "lower-right corner",
        "bottom-right of the image",
    ),
}
PLACES: Final = tuple(_NAMES)

_BOXES: Final = {
    "whole": (0, 0, 1000, 1000),
    "upper": (0, 0, 1000, 450),
    "lower": (0, 550, 1000, 1000),
    "left": (0, 0, 450, 1000),
    "right": (550, 0, 1000, 1000),
    "center": (250, 250, 750, 750),
    "upper left": (0, 0, 450, 450),
    "upper right": (550, 0, 1000, 450),
    "lower left": (0, 550, 450, 1000),
    "lower right": (550, 550, 1000, 1000),
}


def place_of(box: Box) -> str:
    """Which of `PLACES` a box is best said to be in."""
    if area_of(box) >= 0.62 * BOX_SCALE**2:
        return "whole"
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    column = 0 if x < 400 else 2 if x > 600 else 1
    row = 0 if y < 400 else 2 if y > 600 else 1
    vertical = ("upper", "", "lower")[row]
    horizontal = ("left", "", "right")[column]
    return f"{vertical} {horizontal}".strip() or "center"


def names_of(place: str) -> tuple[str, ...]:
    """All the ways to say a place, without the article."""
    return _NAMES[place]


def name_of(place: str, random: Random) -> str:
    """One of the ways to say a place, without the article."""
    return worded(_NAMES[place], random)


def plain_name_of(place: str) -> str:
    """The most usual way to say a place."""
    return _NAMES[place][0]


def reach_of(place: str) -> Box:
    """Roughly the box that a place speaks of."""
    return _BOXES[place]
