"""How much of each task a picture is asked: iDETEX's mixing of heterogeneous supervision."""

from collections.abc import Mapping
from random import Random
from typing import Final

from idetex_edge.prompts import TASKS

Mixture = Mapping[str, float]
"""Expected number of questions about one picture, by task (see `idetex_edge.prompts.TASKS`)."""

BOXES: Final[Mixture] = {"locate": 7, "grounding": 1.5, "region": 0.5}
"""Boxes alone, and many: to find edges is learnt before there is any use for it."""

READING: Final[Mixture] = {
    "score": 1,
    "grounding": 1.5,
    "region": 2,
    "locate": 4,
    "choice": 8,
    "question": 0.7,
    "description": 0.3,
    "single": 0.15,
    "brief": 0.05,
}
"""Many short answers: a letter teaches little each, and is the hardest to learn."""

EVERYTHING: Final[Mixture] = {
    "score": 1,
    "grounding": 1.5,
    "region": 2,
    "locate": 2,
    "choice": 8,
    "question": 0.8,
    "description": 1,
    "single": 0.3,
    "brief": 0.15,
}
"""Every picture is described: three of the challenge's six scores are read from descriptions.

What validation and a user's own ViDA-UGC files are asked."""

JOINED: Final[Mixture] = {
    "score": 1,
    "grounding": 0.75,
    "region": 1,
    "locate": 1,
    "choice": 4,
    "question": 0.4,
    "description": 0.7,
    "single": 0.15,
    "brief": 0.075,
}
"""About half of it, so that a step has more pictures (`stages.LANGUAGE`), which teach more; every
score, and most descriptions."""


def without_brief(mixture: Mixture) -> Mixture:
    """A mixture in which reasoning is never asked for in brief."""
    return {**mixture, "brief": 0.0}


EVEN: Final[Mixture] = dict.fromkeys(TASKS, 1.0)
"""Every task once."""


def counts(mixture: Mixture, random: Random) -> dict[str, int]:
    """Draw how often each task is asked about one picture, whole numbers around the mixture's."""
    drawn: dict[str, int] = {}
    for task in TASKS:
        whole, part = divmod(mixture.get(task, 0.0), 1)
        drawn[task] = int(whole) + (random.random() < part)
    return drawn
