"""Arithmetic on boxes (x1, y1, x2, y2)."""

from __future__ import annotations

from collections.abc import Sequence

from idetex_edge.errors import RequestError
from idetex_edge.results import Box
from idetex_edge.vocabulary import BOX_SCALE


def to_thousandths(region: Sequence[int], width: int, height: int) -> Box:
    """Turn a region in pixels of a `width` x `height` picture into integers 0..1000.

    Raises RequestError when it is not four numbers, is empty, or reaches out of the picture.
    """
    if len(region) == 4:
        x1, y1, x2, y2 = region
        if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
            across, down = BOX_SCALE / width, BOX_SCALE / height
            return round(x1 * across), round(y1 * down), round(x2 * across), round(y2 * down)
    raise RequestError(
        f"region {tuple(region)} is no box inside the {width} x {height} picture; "
        "give (x1, y1, x2, y2) in its pixels"
    )


def overlap(first: Box, second: Box) -> float:
    """Intersection over union, 0..1; 0 where a box is empty."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    tall = min(first[3], second[3]) - max(first[1], second[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return wide * tall / (sum(areas) - wide * tall)
