"""All the questions asked about one pooled picture in one training step."""

from collections.abc import Callable
from random import Random

from export.pool.shards import Record
from export.supervision import choices
from export.supervision.descriptions import brief_description, full_description
from export.supervision.example import Example
from export.supervision.grounding import detection, location, region_perception
from export.supervision.levels import level_of, level_probabilities, pseudo_mos
from export.supervision.mixture import EVERYTHING, Mixture, counts
from export.supervision.truths import mirror


def score_example(mos: float) -> Example:
    """The level, with its neighbours' probabilities."""
    return Example("score", f" {level_of(mos)}", levels=level_probabilities(mos))


def examples_for(
    record: Record, mirrored: tuple[bool, bool], random: Random, mixture: Mixture = EVERYTHING
) -> list[Example]:
    """Questions about a pooled picture, mirrored (left-right, top-bottom) or not, by a mixture.

    A choice that the picture gives no cause for is left out.
    """
    truths = mirror(record.truths, *mirrored)
    mos = pseudo_mos(record)
    level, looks = level_of(mos), record.appearance
    makers: dict[str, Callable[[], Example | None]] = {
        "score": lambda: score_example(mos),
        "grounding": lambda: detection(truths),
        "region": lambda: region_perception(truths, random),
        "locate": lambda: location(truths, random),
        "choice": lambda: random.choice(choices.CHOICES)(truths, random),
        "description": lambda: full_description(truths, looks, level, random),
        "brief": lambda: brief_description(truths, looks, level),
    }
    asked = [
        makers[task]() for task, count in counts(mixture, random).items() for _ in range(count)
    ]
    return [example for example in asked if example is not None]
