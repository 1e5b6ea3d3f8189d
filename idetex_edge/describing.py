"""A description as the runtime gives it: parsed, placed on the picture, each distortion once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from idetex_edge.boxes import overlap
from idetex_edge.parsing import parse_description, summary_start
from idetex_edge.results import Description, Distortion

_SAME: Final = 0.5
"""By how much the boxes of one distortion, told twice, overlap at least."""


def read_description(text: str, width: int, height: int) -> Description:
    """Read a model's description of a `width` x `height` picture.

    The paragraph before its verdict names what matters most once more, and small models copy boxes
    inexactly. There a distortion is one that was described before: of the same type, the one that
    its box overlaps most, by half at least. Where none is, it stands for itself.
    """
    found = parse_description(text).placed(width, height)
    known = parse_description(text[: summary_start(text)]).placed(width, height).distortions
    return replace(
        found,
        distortions=tuple(dict.fromkeys(_meant(each, known) for each in found.distortions)),
        key_distortions=tuple(dict.fromkeys(_meant(key, known) for key in found.key_distortions)),
    )


def _meant(told: Distortion, known: Sequence[Distortion]) -> Distortion:
    if told in known:
        return told
    alike = [distortion for distortion in known if distortion.type == told.type]
    nearest = max(alike, key=lambda other: overlap(other.box_1000, told.box_1000), default=told)
    return nearest if overlap(nearest.box_1000, told.box_1000) >= _SAME else told
