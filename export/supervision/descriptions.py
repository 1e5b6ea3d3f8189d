"""Reasoned descriptions: what the picture is like, what is wrong where, what matters, how good.

They speak only of what can be seen without knowing objects: light, contrast, colour, detail,
places, the distortions and what they do.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from export.distortions.compose import Truth
from export.pool.appearance import Appearance
from export.supervision.choices import article
from export.supervision.example import Example
from export.supervision.grounding import reference
from export.supervision.places import place_of, plain_name_of
from export.supervision.truths import most_significant
from export.supervision.wording import listed, worded
from idetex_edge.vocabulary import DISTORTIONS, QUALITY_SENTENCE, box_text

_COUNTS: Final = ("no", "one", "two", "three", "four", "five", "six")

_EFFECTS: Final = {
    "Low clarity": (
        "Fine detail is lost and the textures look soft.",
        "Edges and textures are less defined than they should be.",
    ),
    "Edge aliasing effect": (
        "Edges look jagged and stair-stepped instead of smooth.",
        "Contours break into small steps, which looks artificial.",
    ),
    "Blocking artifacts": (
        "Square blocks disturb smooth areas and break up the texture.",
        "Block edges are visible and fine detail is replaced by flat squares.",
    ),
    "Underexposure": (
        "It is too dark, and detail in the shadows is hard to see.",
        "The lack of light hides detail and dulls the colors.",
    ),
    "Overexposure": (
        "It is too bright, and detail in the highlights is washed out.",
        "Too much light bleaches the colors and erases detail.",
    ),
    "Out of focus blur": (
        "Everything there is evenly blurred, with soft edges and no fine detail.",
        "The focus is missed, so edges spread and detail disappears.",
    ),
    "Motion blur": (
        "Edges are smeared along a direction, as from movement.",
        "Movement drags the detail into streaks.",
    ),
    "Noise": (
        "Random grain covers the surfaces and hides fine texture.",
        "Speckles disturb smooth areas and make the colors uneven.",
    ),
    "Meaningless solid color": (
        "A flat color covers the content, so nothing can be seen there.",
        "The content is missing and only one flat color is left.",
    ),
    "Edge ringing effect": (
        "Bright and dark halos run along the edges.",
        "Ripples beside the edges make them look overdrawn.",
    ),
}

_PLURALS: Final = {
    "Low clarity": "low clarity distortions",
    "Edge aliasing effect": "edge aliasing effects",
    "Blocking artifacts": "blocking artifacts",
    "Underexposure": "underexposures",
    "Overexposure": "overexposures",
    "Out of focus blur": "out of focus blurs",
    "Motion blur": "motion blurs",
    "Noise": "noise distortions",
    "Meaningless solid color": "meaningless solid colors",
    "Edge ringing effect": "edge ringing effects",
}

_LIGHT: Final = ((0.22, "very dark"), (0.36, "dark"), (0.6, "evenly lit"), (0.75, "bright"))
_CONTRAST: Final = ((0.12, "low"), (0.24, "moderate"))
_COLOUR: Final = ((0.02, "almost no color"), (0.06, "muted colors"), (0.14, "natural colors"))


def _grade(value: float, steps: Sequence[tuple[float, str]], top: str) -> str:
    return next((words for limit, words in steps if value < limit), top)


def scene_text(looks: Appearance) -> str:
    """One sentence on light, contrast and colour."""
    light = _grade(looks.light, _LIGHT, "very bright")
    contrast = _grade(looks.contrast, _CONTRAST, "high")
    colour = _grade(looks.colour, _COLOUR, "vivid colors")
    tone = ""
    if looks.colour >= _COLOUR[0][0] and abs(looks.warmth) > 0.06:
        tone = " in warm tones" if looks.warmth > 0 else " in cool tones"
    scene = f"{article(light)} {light} scene"
    return f"The image shows {scene} with {contrast} contrast and {colour}{tone}."


def _kind_text(kind: str, truths: Sequence[Truth], random: Random) -> str:
    effect = worded(_EFFECTS[kind], random)
    if len(truths) == 1:
        truth = truths[0]
        return (
            f"There is one {reference(truth, False)}{box_text(truth.box)} affecting the "
            f"{plain_name_of(place_of(truth.box))}. {effect}"
        )
    parts = [
        f"{reference(truth, True)}{box_text(truth.box)} affects the "
        f"{plain_name_of(place_of(truth.box))}."
        for truth in truths
    ]
    count = _COUNTS[min(len(truths), len(_COUNTS) - 1)]
    return f"There are {count} {_PLURALS[kind]} in the image. {' '.join(parts)} {effect}"


def _verdict_text(truths: Sequence[Truth], looks: Appearance) -> str:
    sharp = "fine detail" if looks.detail > 0.012 else "little fine detail"
    if not truths:
        return f"No distortion disturbs the image. It keeps {sharp} and clean edges."
    keys = most_significant(truths)
    named = " and ".join(f"{reference(t, False)}{box_text(t.box)}" for t in keys)
    verb = "have" if len(keys) > 1 else "has"
    return (
        f"The {named} {verb} the most significant impact on the overall quality. "
        f"The image is left with {sharp}."
    )


def full_description(
    truths: Sequence[Truth], looks: Appearance, level: str, random: Random
) -> Example:
    """The full, reasoned description with boxes."""
    lines = [scene_text(looks)]
    for kind in DISTORTIONS:
        found = [t for t in truths if t.type == kind]
        if found:
            lines.append(_kind_text(kind, found, random))
    above = "\n".join(lines)
    verdict = f"{_verdict_text(truths, looks)}\n{QUALITY_SENTENCE} {level}."
    return Example("description", f"{above}\n{verdict}", stops=(len(above) + 1,))


def single_assessment(truths: Sequence[Truth], random: Random) -> Example:
    """How one type shows and what it does to the quality: three times in four one that is there."""
    present = sorted({t.type for t in truths})
    kind = random.choice(present if present and random.random() < 0.75 else DISTORTIONS)
    found = [t for t in truths if t.type == kind]
    fields = {"distortion": kind.lower()}
    if not found:
        return Example("single", f"There is no {kind.lower()} in the image.", fields, stops=(0,))
    leads = any(key in found for key in most_significant(truths))
    effect = (
        "has the most significant impact on the overall quality"
        if leads
        else "matters less for the overall quality than other distortions do"
    )
    return Example("single", f"{_kind_text(kind, found, random)} It {effect}.", fields)


def brief_description(truths: Sequence[Truth], looks: Appearance, level: str) -> Example:
    """One or two sentences, no boxes."""
    if not truths:
        return Example("brief", f"{scene_text(looks)} The quality is {level}: nothing disturbs it.")
    kinds: list[str] = []
    for truth in sorted(truths, key=lambda t: DISTORTIONS.index(t.type)):
        words = f"{truth.severity} {truth.type.lower()}"
        if words not in kinds:
            kinds.append(words)
    because = f"The quality is {level} because of {listed(kinds)}."
    return Example("brief", f"{scene_text(looks)} {because}")
