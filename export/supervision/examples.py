"""All the questions asked about one pooled picture in one training step."""

from random import Random
from typing import Final

from export.pool.shards import Record
from export.supervision import choices
from export.supervision.descriptions import brief_description, full_description
from export.supervision.example import Example
from export.supervision.grounding import detection, location, region_perception
from export.supervision.levels import level_of, level_probabilities, pseudo_mos
from export.supervision.truths import mirror

_DESCRIBED: Final = 0.5
_BRIEFED: Final = 0.15
"""How often a picture is described: the long answers cost the most and teach the least each."""


def score_example(mos: float) -> Example:
    """The level, with its neighbours' probabilities."""
    return Example("score", f" {level_of(mos)}", levels=level_probabilities(mos))


def examples_for(
    record: Record, mirrored: tuple[bool, bool], random: Random, questions: int = 8
) -> list[Example]:
    """The score, boxes, a type, two regions, often a description, up to `questions` choices."""
    truths = mirror(record.truths, *mirrored)
    mos = pseudo_mos(record)
    level = level_of(mos)
    looks = record.appearance
    found: list[Example] = [
        score_example(mos),
        detection(truths),
        region_perception(truths, random),
        region_perception(truths, random),
        location(truths, random),
    ]
    if random.random() < _DESCRIBED:
        found.append(full_description(truths, looks, level, random))
    if random.random() < _BRIEFED:
        found.append(brief_description(truths, looks, level))
    for _ in range(questions):
        example = random.choice(choices.CHOICES)(truths, random)
        if example is not None:
            found.append(example)
    return found
