"""Average precision of boxes, VOC 2010+ all-point, as the challenge's scorer computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from idetex_edge.boxes import overlap
from idetex_edge.results import Box

_HIT: Final = 0.5
"""The least intersection over union of a right box."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A named box (x1, y1, x2, y2) in a picture."""

    image: str
    name: str
    box: Box


def average_precisions(labelled: Sequence[Mark], predicted: Sequence[Mark]) -> dict[str, float]:
    """Average precision 0..1 of every name that is labelled or predicted, in order of names.

    All predictions are equally confident, so precision follows their order: picture by picture,
    pictures in the order in which they are first met. Names are compared as they are.
    """
    met = {image: i for i, image in enumerate(dict.fromkeys(mark.image for mark in predicted))}
    ordered = sorted(predicted, key=lambda mark: met[mark.image])
    names = sorted({mark.name for mark in (*labelled, *predicted)})
    return {
        name: _average_precision(
            [mark for mark in labelled if mark.name == name],
            [mark for mark in ordered if mark.name == name],
        )
        for name in names
    }


def _average_precision(labelled: Sequence[Mark], predicted: Sequence[Mark]) -> float:
    """The area under precision over recall; 0 where only labelled or only predicted."""
    if not labelled or not predicted:
        return 0.0
    hits = np.cumsum(_hits(labelled, predicted), dtype=np.float64)
    recall = np.concatenate(([0.0], hits / len(labelled), [1.0]))
    precision = np.append(hits / np.arange(1, len(hits) + 1), 0.0)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(recall)
    return float((gained[gained > 0] * best_from_here[gained > 0]).sum())


def _hits(labelled: Sequence[Mark], predicted: Sequence[Mark]) -> list[bool]:
    """Whether each prediction's nearest label is near enough and not taken by an earlier one."""
    in_image: dict[str, list[int]] = {}
    for index, label in enumerate(labelled):
        in_image.setdefault(label.image, []).append(index)
    taken: set[int] = set()
    hits: list[bool] = []
    for mark in predicted:
        shares = {i: overlap(mark.box, labelled[i].box) for i in in_image.get(mark.image, ())}
        nearest = max(shares, key=lambda i: shares[i], default=None)
        hit = nearest is not None and shares[nearest] >= _HIT and nearest not in taken
        if hit and nearest is not None:
            taken.add(nearest)
        hits.append(hit)
    return hits
