"""Multiple-choice questions of the four concerns: type, position, severity, significance."""

from collections.abc import Sequence
from random import Random
from typing import Final

from export.distortions.compose import Truth
from export.supervision.example import Example
from export.supervision.places import PLACES, name_of, place_of, reach_of
from export.supervision.truths import area_of, loss_of, overlap
from export.supervision.wording import worded
from idetex_edge.prompts import options_text
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

PRESENT: Final = (
    "What type of distortion is present in this image?",
    "Which distortion is present in the image?",
    "Which type of distortion can be seen in this image?",
    "What distortion affects this image?",
)
_ABSENT: Final = (
    "What type of distortion is not present in this image?",
    "Which distortion is not present in the image?",
    "Which type of distortion does not appear in this image?",
)
WHERE: Final = (
    "Which part of the image suffers from {kind}?",
    "Where is the {kind} located in the image?",
    "Which region of the image is most affected by {kind}?",
    "Which part of the image is affected by {kind}?",
    "Where does {kind} appear in the image?",
    "What area is affected by the {kind} in the image?",
)
WHAT_THERE: Final = (
    "What type of distortion affects the {place}?",
    "What distortion is present in the {place}?",
    "Which distortion affects the {place}?",
    "What distortion is observed in the {place}?",
)
HOW_SEVERE: Final = (
    "There is {article} {kind} affecting the {place}. How severe is it?",
    "How severe is the {kind} in the {place}?",
    "How severe is the {kind} in the image?",
    "What is the severity of the {kind} in this image?",
)
_SCALE: Final = (
    "You are an expert in image quality assessment. Please assess the severity of the "
    "distortion, which can be one of the following three levels:\nNot visible: The distortion is "
    "not present in the image. Minor: Barely perceptible upon close inspection. Moderate: "
    "Clearly noticeable at a glance. Severe: Significantly impacts the overall perception of the "
    "image.\nHere is the question: "
)
MOST: Final = (
    "What is the most significant distortion in this image?",
    "Which distortion has the most significant impact on the overall image quality?",
    "Which distortion affects the image quality the most?",
    "What is the most significant distortion?",
    "Which distortion most significantly degrades the image?",
)
_GRADES: Final = ("Minor", "Moderate", "Severe", "Not visible")


def article(words: str) -> str:
    """`a` or `an`."""
    return "an" if words[0].lower() in "aeiou" else "a"


def _choice(question: str, right: str, wrong: Sequence[str], random: Random) -> Example:
    options = [right, *wrong]
    random.shuffle(options)
    letter = chr(ord("A") + options.index(right))
    fields = {"question": question, "options": options_text(options)}
    return Example("choice", letter, fields)


def type_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """Which type is there, or which is not."""
    present = sorted({t.type for t in truths})
    absent = [d for d in DISTORTIONS if d not in present]
    if len(present) >= 2 and random.random() < 0.5:
        wrong = random.sample(present, min(3, len(present)))
        return _choice(worded(_ABSENT, random), random.choice(absent), wrong, random)
    if not present:
        return None
    wrong = random.sample(absent, 3)
    return _choice(worded(PRESENT, random), random.choice(present), wrong, random)


def where_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """Where a type is, among places that it does not touch."""
    if not truths:
        return None
    truth = random.choice(truths)
    boxes = [t.box for t in truths if t.type == truth.type]
    right = place_of(truth.box)

    def clear(place: str) -> bool:
        reach = reach_of(place)
        shares = [area_of(overlap(box, reach)) / area_of(reach) for box in boxes]
        return max(shares) < 0.25

    wrong = [place for place in PLACES if place not in (right, "whole") and clear(place)]
    if right == "whole":
        wrong = [p for p in PLACES if p != "whole"]
    elif random.random() < 0.3:
        wrong.append("whole")
    if len(wrong) < 3:
        return None
    picked = random.sample(wrong, 3)
    question = worded(WHERE, random).format(kind=truth.type.lower())
    prefix = random.choice(("The ", "the ", ""))

    def say(place: str) -> str:
        words = prefix + name_of(place, random)
        return words[0].upper() + words[1:] if prefix != "the " else words

    return _choice(question, say(right), [say(place) for place in picked], random)


def what_there_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """Which type is at a place."""
    if not truths:
        return None
    truth = random.choice(truths)
    place = place_of(truth.box)
    touching = {t.type for t in truths if area_of(overlap(t.box, truth.box)) > 0}
    wrong = [d for d in DISTORTIONS if d not in touching]
    question = worded(WHAT_THERE, random).format(place=name_of(place, random))
    return _choice(question, truth.type, random.sample(wrong, 3), random)


def severity_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """How severe a type is, or that it is not there."""
    present = {t.type for t in truths}
    if truths and random.random() < 0.8:
        truth = random.choice(truths)
        kind, place, grade = truth.type, place_of(truth.box), truth.severity.capitalize()
        if len({t.severity for t in truths if t.type == kind}) > 1:
            return None
    else:
        kind = random.choice([d for d in DISTORTIONS if d not in present])
        place, grade = random.choice(PLACES), "Not visible"
    question = worded(HOW_SEVERE, random).format(
        article=article(kind), kind=kind.lower(), place=name_of(place, random)
    )
    if random.random() < 0.25:
        question = _SCALE + question
    ordered = Example(
        "choice",
        chr(ord("A") + _GRADES.index(grade)),
        {"question": question, "options": options_text(_GRADES)},
    )
    if random.random() < 0.6:
        return ordered
    return _choice(question, grade, [g for g in _GRADES if g != grade], random)


def significance_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """Which type matters most, against others that are there and some that are not."""
    losses: dict[str, float] = {}
    for truth in truths:
        losses[truth.type] = max(loss_of(truth), losses.get(truth.type, 0.0))
    ranked = sorted(losses, key=lambda kind: losses[kind], reverse=True)
    if not ranked or (len(ranked) > 1 and losses[ranked[1]] > 0.85 * losses[ranked[0]]):
        return None
    others = ranked[1:4]
    absent = [d for d in DISTORTIONS if d not in losses]
    wrong = others + random.sample(absent, 3 - len(others))
    return _choice(worded(MOST, random), ranked[0], wrong, random)


CHOICES: Final = {
    type_choice: 1.0,
    where_choice: 2.0,
    what_there_choice: 0.6,
    severity_choice: 2.0,
    significance_choice: 0.6,
}
"""The kinds of question and how often each is asked: more often what is harder to learn."""


def any_choice(truths: Sequence[Truth], random: Random) -> Example | None:
    """A question of some kind, or None where the picture gives no cause for it."""
    (make,) = random.choices(tuple(CHOICES), tuple(CHOICES.values()))
    return make(truths, random)


assert set(_GRADES[:3]) == {s.capitalize() for s in SEVERITIES}
