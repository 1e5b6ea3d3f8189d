"""Open questions of the four concerns, answered in a sentence: type, position, severity, weight."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from export.distortions.compose import Truth
from export.supervision.choices import HOW_SEVERE, MOST, WHAT_THERE, WHERE, article
from export.supervision.example import Example
from export.supervision.places import name_of, place_of, plain_name_of
from export.supervision.truths import area_of, most_significant, overlap
from export.supervision.wording import listed, worded
from idetex_edge.vocabulary import DISTORTIONS

_WHICH: Final = (
    "What distortions are present in this image?",
    "Which types of distortion can be seen in this image?",
    "What is wrong with this image?",
)
_NONE: Final = "No distortion disturbs the image."


def _kinds(truths: Sequence[Truth]) -> list[str]:
    return [kind.lower() for kind in DISTORTIONS if any(t.type == kind for t in truths)]


def _example(question: str, answer: str, stops: tuple[int, ...] = ()) -> Example:
    return Example("question", answer, {"question": question}, stops=stops)


def which(truths: Sequence[Truth], random: Random) -> Example:
    """Which types there are."""
    question = worded(_WHICH, random)
    kinds = _kinds(truths)
    if not kinds:
        return _example(question, _NONE, (0,))
    verb = "is" if len(kinds) == 1 else "are"
    return _example(question, f"There {verb} {listed(kinds)}.")


def where(truths: Sequence[Truth], random: Random) -> Example | None:
    """Where a type is."""
    if not truths:
        return None
    kind = random.choice(truths).type
    places = dict.fromkeys(plain_name_of(place_of(t.box)) for t in truths if t.type == kind)
    question = worded(WHERE, random).format(kind=kind.lower())
    return _example(question, f"It affects the {listed([*places])}.")


def what_there(truths: Sequence[Truth], random: Random) -> Example | None:
    """Which types are at a place."""
    if not truths:
        return None
    truth = random.choice(truths)
    there = [t for t in truths if area_of(overlap(t.box, truth.box)) > 0.5 * area_of(truth.box)]
    place = name_of(place_of(truth.box), random)
    question = worded(WHAT_THERE, random).format(place=place)
    return _example(question, f"It is affected by {listed(_kinds(there or [truth]))}.")


def how_severe(truths: Sequence[Truth], random: Random) -> Example | None:
    """How severe a type is, or that it is not there."""
    present = {t.type for t in truths}
    if truths and random.random() < 0.8:
        truth = random.choice(truths)
        kind, place, answer = truth.type, place_of(truth.box), f"It is {truth.severity}."
        if len({t.severity for t in truths if t.type == kind}) > 1:
            return None
    else:
        kind = random.choice([d for d in DISTORTIONS if d not in present])
        place, answer = "whole", f"There is no {kind.lower()} in the image."
    question = worded(HOW_SEVERE, random).format(
        article=article(kind), kind=kind.lower(), place=name_of(place, random)
    )
    return _example(question, answer)


def which_most(truths: Sequence[Truth], random: Random) -> Example:
    """Which type matters most, how severe it is, and where."""
    question = worded(MOST, random)
    keys = most_significant(truths)
    if not keys:
        return _example(question, _NONE, (0,))
    key = keys[0]
    place = plain_name_of(place_of(key.box))
    return _example(question, f"It is the {key.severity} {key.type.lower()} affecting the {place}.")


_QUESTIONS: Final[tuple[Callable[[Sequence[Truth], Random], Example | None], ...]] = (
    which,
    where,
    what_there,
    how_severe,
    which_most,
)


def any_question(truths: Sequence[Truth], random: Random) -> Example | None:
    """An open question of some kind, or None where the picture gives no cause for it."""
    return random.choice(_QUESTIONS)(truths, random)
