"""All the questions asked about one pooled picture in one training step."""

from collections.abc import Callable, Sequence
from random import Random

from export.distortions.compose import Truth
from export.pool.appearance import Appearance
from export.pool.shards import Record
from export.supervision.choices import any_choice
from export.supervision.descriptions import (
    brief_description,
    full_description,
    single_assessment,
)
from export.supervision.example import Example
from export.supervision.grounding import detection, location, region_perception
from export.supervision.levels import level_of, level_probabilities, pseudo_mos
from export.supervision.mixture import EVERYTHING, Mixture, counts
from export.supervision.questions import any_question
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
    return examples_about(truths, pseudo_mos(record), record.appearance, random, mixture)


def examples_about(
    truths: Sequence[Truth],
    mos: float | None,
    looks: Appearance | None,
    random: Random,
    mixture: Mixture,
) -> list[Example]:
    """Questions about a picture of which these things are known.

    Without a score (1..5) none is asked for; without looks too, nothing is described.
    """
    makers: dict[str, Callable[[], Example | None]] = {
        "grounding": lambda: detection(truths),
        "region": lambda: region_perception(truths, random),
        "locate": lambda: location(truths, random),
        "choice": lambda: any_choice(truths, random),
        "question": lambda: any_question(truths, random),
        "single": lambda: single_assessment(truths, random),
    }
    if mos is not None:
        level = level_of(mos)
        makers["score"] = lambda: score_example(mos)
        if looks is not None:
            makers["description"] = lambda: full_description(truths, looks, level, random)
            makers["brief"] = lambda: brief_description(truths, looks, level)
    times = counts(mixture, random)
    asked = [makers[task]() for task in times if task in makers for _ in range(times[task])]
    return [example for example in asked if example is not None]
