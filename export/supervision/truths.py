"""Geometry and weight of what was done to a picture."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from export.distortions.compose import Truth
from idetex_edge.vocabulary import BOX_SCALE

Box = tuple[int, int, int, int]

SEVERITY_LOSS: Final = {"minor": 0.18, "moderate": 0.45, "severe": 0.8}
"""The share of quality a distortion of the whole picture takes away."""


def mirror(truths: Sequence[Truth], across: bool, down: bool) -> list[Truth]:
    """The truths of a picture mirrored left-right (`across`) and top-bottom (`down`)."""
    mirrored: list[Truth] = []
    for truth in truths:
        x1, y1, x2, y2 = truth.box
        if across:
            x1, x2 = BOX_SCALE - x2, BOX_SCALE - x1
        if down:
            y1, y2 = BOX_SCALE - y2, BOX_SCALE - y1
        mirrored.append(replace(truth, box=(x1, y1, x2, y2)))
    return mirrored


def loss_of(truth: Truth) -> float:
    """How much of the picture's quality one distortion takes, 0..1: severity by root of area."""
    return SEVERITY_LOSS[truth.severity] * math.sqrt(truth.area)


def most_significant(truths: Sequence[Truth]) -> list[Truth]:
    """The distortion that takes the most; two where they take the same."""
    ranked = sorted(truths, key=loss_of, reverse=True)
    return [t for t in ranked if loss_of(t) == loss_of(ranked[0])][:2]


def area_of(box: Box) -> int:
    """Area of a 0..1000 box."""
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def overlap(first: Box, second: Box) -> Box:
    """The intersection of two boxes; empty ones have no area."""
    return (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )


def within(truths: Sequence[Truth], region: Box) -> list[Truth]:
    """What affects a region: boxes clipped to it, where they fill it or lie in it enough."""
    found: list[Truth] = []
    for truth in truths:
        part = overlap(truth.box, region)
        enough = max(0.2 * area_of(region), 1)
        if area_of(part) >= enough or area_of(part) >= 0.5 * max(1, area_of(truth.box)):
            found.append(replace(truth, box=part))
    return found
