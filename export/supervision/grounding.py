"""Grounding answers: all distortions, those in a region, those of one type."""

from collections.abc import Sequence
from random import Random

from export.distortions.compose import Truth
from export.supervision.example import Example
from export.supervision.truths import Box, area_of, within
from idetex_edge.vocabulary import (
    BOX_SCALE,
    DISTORTIONS,
    NO_DISTORTION,
    OBJECT_REF_END,
    OBJECT_REF_START,
    SEVERITIES,
    box_text,
)

_LEAST_SIDE = 40


def reference(truth: Truth, capital: bool) -> str:
    """`<|object_ref_start|>moderate noise<|object_ref_end|>`."""
    words = f"{truth.severity} {truth.type.lower()}"
    words = words.capitalize() if capital else words
    return f"{OBJECT_REF_START}{words}{OBJECT_REF_END}"


def grounding_text(truths: Sequence[Truth], separator: str) -> str:
    """The answer's layout in ViDA-UGC: a line for each type, in the order of `DISTORTIONS`.

    `separator` stands between a type and its boxes: a line break over the whole picture, a space
    in a region.
    """
    lines: list[str] = []
    for kind in DISTORTIONS:
        groups: list[str] = []
        for severity in reversed(SEVERITIES):
            boxes = [t for t in truths if t.type == kind and t.severity == severity]
            if boxes:
                boxes.sort(key=lambda t: area_of(t.box), reverse=True)
                groups.append(reference(boxes[0], True) + "".join(box_text(t.box) for t in boxes))
        if groups:
            lines.append(f"{kind}:{separator}{''.join(groups)}")
    return "\n".join(lines) or NO_DISTORTION


def _listing(task: str, truths: Sequence[Truth], separator: str, **fields: str) -> Example:
    text = grounding_text(truths, separator)
    return Example(task, text, fields, stops=(len(text) if truths else 0,))


def detection(truths: Sequence[Truth]) -> Example:
    """All distortions of the picture."""
    return _listing("grounding", truths, "\n")


def location(truths: Sequence[Truth], random: Random) -> Example:
    """Where one type is: three times in four one that is there."""
    present = sorted({t.type for t in truths})
    kind = random.choice(present if present and random.random() < 0.75 else DISTORTIONS)
    found = [t for t in truths if t.type == kind]
    return _listing("locate", found, "\n", distortion=kind.lower())


def _jitter(box: Box, random: Random) -> Box:
    spread = 25
    x1, y1, x2, y2 = (
        min(BOX_SCALE, max(0, edge + random.randint(-spread, spread))) for edge in box
    )
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _random_box(random: Random) -> Box:
    width, height = random.randint(150, 700), random.randint(150, 700)
    x, y = random.randint(0, BOX_SCALE - width), random.randint(0, BOX_SCALE - height)
    return (x, y, x + width, y + height)


def region_perception(truths: Sequence[Truth], random: Random) -> Example:
    """What affects a region: mostly around a distortion, sometimes anywhere.

    People ask about a part of a picture where they see something.
    """
    dice = random.random()
    if truths and dice < 0.5:
        region = random.choice(truths).box
    elif truths and dice < 0.9:
        region = _jitter(random.choice(truths).box, random)
    else:
        region = _random_box(random)
    if region[2] - region[0] < _LEAST_SIDE or region[3] - region[1] < _LEAST_SIDE:
        region = _random_box(random)
    return _listing("region", within(truths, region), " ", region=box_text(region))
