import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idetex_edge.errors import RequestError
from idetex_edge.parsing import parse_choice, parse_description, parse_grounding, plain_text
from idetex_edge.results import Box, Distortion
from idetex_edge.vocabulary import (
    DISTORTIONS,
    LEVELS,
    NO_DISTORTION,
    OBJECT_REF_END,
    OBJECT_REF_START,
    QUALITY_SENTENCE,
    SEVERITIES,
    box_text,
)


def ref(words: str) -> str:
    return f"{OBJECT_REF_START}{words}{OBJECT_REF_END}"


NOISE = Distortion("Noise", "severe", (1, 2, 30, 40))
BLUR = Distortion("Motion blur", "moderate", (100, 200, 1000, 900))
EDGES = Distortion("Edge aliasing effect", "minor", (0, 0, 1000, 1000))

BOXES = st.tuples(*[st.integers(0, 1000)] * 4)
FOUND = st.builds(Distortion, st.sampled_from(DISTORTIONS), st.sampled_from(SEVERITIES), BOXES)


def phrase(distortion: Distortion) -> str:
    return f"{distortion.severity} {distortion.type.lower()}"


def grounding_text(distortions: list[Distortion], newline: str) -> str:
    """Write distortions as ViDA does: a heading a type, a reference a severity, then boxes."""
    groups: dict[str, dict[str, list[Box]]] = {}
    for found in distortions:
        groups.setdefault(found.type, {}).setdefault(found.severity, []).append(found.box_1000)
    return "\n".join(
        f"{kind}:{newline}"
        + "\n".join(
            ref(f"{severity.capitalize()} {kind.lower()}") + "".join(map(box_text, boxes))
            for severity, boxes in severities.items()
        )
        for kind, severities in groups.items()
    )


def description_text(distortions: list[Distortion], keys: list[Distortion], level: str) -> str:
    lines = ["The image shows a harbour (with 2 boats). It is dusk."]
    lines += [
        f"There is one {ref(phrase(found))}{box_text(found.box_1000)} affecting the boats. They "
        "look worse for it."
        for found in distortions
    ]
    named = " and ".join(ref(phrase(key)) + box_text(key.box_1000) for key in keys)
    lines.append(f"The {named or 'light'} matters most. The rest does not.")
    return "\n".join([*lines, f"{QUALITY_SENTENCE} {level}.<|im_end|>"])


def plain_scan(text: str) -> list[tuple[str, str, Box]]:
    """Read well-formed grounding text by position instead of by line."""
    headings = [
        (match.start(), match[1])
        for match in re.finditer("^(" + "|".join(DISTORTIONS) + "):", text, re.MULTILINE)
    ]
    severities = [
        (match.start(), match[1].lower())
        for match in re.finditer(r"<\|object_ref_start\|>(\w+)", text)
    ]

    def before(marks: list[tuple[int, str]], place: int) -> str:
        return max(mark for mark in marks if mark[0] < place)[1]

    return [
        (
            before(headings, match.start()),
            before(severities, match.start()),
            (int(match[1]), int(match[2]), int(match[3]), int(match[4])),
        )
        for match in re.finditer(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", text)
    ]


@given(st.lists(FOUND, max_size=12), st.sampled_from(["\n", " "]), st.sampled_from(["", "."]))
def test_grounding_reads_back_what_was_written(
    distortions: list[Distortion], newline: str, end: str
) -> None:
    text = grounding_text(distortions, newline) + end + "<|im_end|>"
    got = parse_grounding(text)
    assert sorted(map(repr, got)) == sorted(map(repr, distortions))
    assert [(found.type, found.severity, found.box_1000) for found in got] == plain_scan(text)


@given(st.lists(FOUND, max_size=12), st.sampled_from(["\n", " "]))
def test_grounding_needs_no_markers(distortions: list[Distortion], newline: str) -> None:
    text = grounding_text(distortions, newline)
    assert parse_grounding(re.sub(r"<\|\w+\|>", "", text)) == parse_grounding(text)


@given(st.lists(FOUND, unique=True), st.data(), st.sampled_from(LEVELS))
def test_descriptions_read_back_what_was_written(
    distortions: list[Distortion], draw: st.DataObject, level: str
) -> None:
    keys = draw.draw(st.lists(st.sampled_from(distortions), unique=True)) if distortions else []
    text = description_text(distortions, keys, level)
    for written in (text, re.sub(r"<\|\w+\|>", "", text), text.replace("\n", "\n\n")):
        got = parse_description(written)
        assert got.distortions == tuple(distortions)
        assert got.key_distortions == tuple(keys)
        assert got.level == level
        assert got.text == written


PIECES = st.sampled_from(
    [
        *(*DISTORTIONS, *SEVERITIES, *LEVELS, QUALITY_SENTENCE),
        *(OBJECT_REF_START, OBJECT_REF_END, "<|box_start|>", "<|im_end|>", "(1,2)", "(3,4)"),
        *(":", "\n", ".", ",", " ", "-", "A", "²", "٣", "9" * 5000),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_parses(text: str) -> None:
    description = parse_description(text)
    for found in (*parse_grounding(text), *description.distortions):
        assert found.type in DISTORTIONS
        assert found.severity in SEVERITIES
        assert all(0 <= value <= 1000 for value in found.box_1000)
    assert description.level is None or description.level in LEVELS
    with contextlib.suppress(RequestError):
        assert parse_choice(text, ["Noise", "Blur"]) in (0, 1)
    assert "<|box_start|>" not in plain_text(text)


@pytest.mark.parametrize(
    "unit", ["(1,", "a ", "There is one ", "<|object_ref_start|>", "thus ", "("]
)
def test_long_texts_take_no_long_time(unit: str) -> None:
    text = unit * 20_000
    assert parse_grounding(text + ".") == []
    got = parse_description(text + ". Yet there is severe noise(1,2),(30,40)").distortions
    assert got == (NOISE,)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (f"{NO_DISTORTION} affects this region.<|im_end|>", []),
        ("", []),
        (f"Noise: {ref('Severe noise')}{box_text((1, 2, 30, 40))}<|im_end|>", [NOISE]),
        (f"{ref('Severe noise')}{box_text((1, 2, 30, 40))}", [NOISE]),
        (f"- **Noise**: severe {box_text((1, 2, 30, 40))}", [NOISE]),
        ("NOISE (severe): (1, 2), (30, 40).", [NOISE]),
        (f"Noises:\n{ref('severe noises')}{box_text((1, 2, 30, 40))}.", [NOISE]),
        (f"Motion_blur:\n{box_text((100, 200, 2000, 900))}", [BLUR]),
        (f"Motion blur: {ref('Moderate')}(100,200)(99999999999,900)", [BLUR]),
        (f"Noise: severe (1,2),(30,{'0' * 5000}40)", [NOISE]),
        (f"Motion blur: moderate (100,200),({'9' * 5000},900)", [BLUR]),
        (f"Edge aliasing: {ref('Slight edge aliasing')}(-3,0),(1000,1000)", [EDGES]),
        (f"Color banding: {ref('Severe color banding')}{box_text((1, 2, 3, 4))}", []),
        (
            f"Color banding: {ref('Severe color banding')}{box_text((1, 2, 3, 4))}\n"
            f"Noise: {ref('Severe noise')}{box_text((1, 2, 30, 40))}",
            [NOISE],
        ),
        (
            f"Noise:\n{ref('Moderate noise')}{box_text((5, 6, 7, 8))}\n"
            f"{ref('Severe noise')}{box_text((1, 2, 30, 40))}",
            [Distortion("Noise", "moderate", (5, 6, 7, 8)), NOISE],
        ),
        (
            f"Noise: {ref('Severe noise')}{box_text((1, 2, 30, 40))}\n"
            f"Noise: {ref('Minor noise')}{box_text((5, 6, 7, 8))}",
            [NOISE, Distortion("Noise", "minor", (5, 6, 7, 8))],
        ),
        (
            f"Noise: {ref('Severe noise')}{box_text((30, 40, 1, 2))}",
            [Distortion("Noise", "severe", (30, 40, 1, 2))],
        ),
        (f"Noise: {ref('Severe noise')}{box_text((1, 2, 30, 40))}<|box_start|>(5,6),(7", [NOISE]),
    ],
)
def test_variants_of_grounding(text: str, want: list[Distortion]) -> None:
    assert parse_grounding(text) == want


def test_spelling_variants_in_descriptions() -> None:
    text = (
        "A cat.\n"
        f"There are two blocking artifacts. {ref('Slight blocking artifact')}"
        f"{box_text((1, 2, 3, 4))} and {ref('severe Blocking Artifacts')}{box_text((5, 6, 7, 8))}"
        f" affect it.\nThere is one {ref('Severe noise')}{box_text((1, 2, 30, 40))} too.\n"
        f"The {ref('slight blocking artifact')}{box_text((1, 2, 3, 4))} is worst. Then comes the "
        f"{ref('severe noise')}{box_text((1, 2, 30, 40))}.\n"
        "Thus, the quality of the image is Poor.\n"
    )
    slight = Distortion("Blocking artifacts", "minor", (1, 2, 3, 4))
    severe = Distortion("Blocking artifacts", "severe", (5, 6, 7, 8))
    got = parse_description(text)
    assert got.distortions == (NOISE, slight, severe)
    assert got.key_distortions == (slight,)
    assert got.level == "poor"


def test_descriptions_without_a_verdict() -> None:
    text = f"A cat.\nThere is one {ref('severe noise')}{box_text((1, 2, 30, 40))} on it."
    got = parse_description(text)
    assert got.distortions == (NOISE,)
    assert got.key_distortions == ()
    assert got.level is None
    assert parse_description(f"{QUALITY_SENTENCE} unknown.").level is None
    assert parse_description(f"{QUALITY_SENTENCE} good").level == "good"


def test_boxes_that_describe_no_distortion_are_left_out() -> None:
    box = box_text((1, 2, 3, 4))
    text = f"The cat {box} has {ref('a bell')}{box}, {ref('severe banding')}{box} and {box}."
    assert parse_description(text).distortions == ()


def test_without_markers_the_last_words_count() -> None:
    text = "There is a moderate loss of colour and severe noise(1,2),(30,40) on the cat."
    assert parse_description(text).distortions == (NOISE,)


def test_boxes_that_share_a_name() -> None:
    first, second = box_text((1, 2, 30, 40)), box_text((5, 6, 7, 8))
    text = f"See {ref('severe noise')}{first} and {second}. The cat {second} is sharp."
    got = parse_description(text).distortions
    assert got == (NOISE, Distortion("Noise", "severe", (5, 6, 7, 8)))


CHOICES = ["The sky", "Motion blur", "Blur", "The lower part of the sky", "A cat"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("A.", 0),
        ("B.<|im_end|>", 1),
        ("c", 2),
        ("(D)", 3),
        ("**E**", 4),
        ("C. The sky", 2),
        ("B: Motion blur", 1),
        ("D\nThe lower part of the sky", 3),
        ("Answer: B", 1),
        ("The answer is **C**.", 2),
        ("Motion blur.", 1),
        ("the SKY", 0),
        ("Blur", 2),
        ("A cat", 4),
        ("A cat.", 4),
        ("It is the lower part of the sky, I think; not a cat", None),
        ("I see a cat there", 4),
        ("F.", None),
        ("", None),
        ("?", None),
        ("Nothing of the kind", None),
    ],
)
def test_choices(text: str, index: int | None) -> None:
    if index is None:
        with pytest.raises(RequestError, match="matches none of the 5 choices"):
            parse_choice(text, CHOICES)
    else:
        assert parse_choice(text, CHOICES) == index


def test_a_choice_among_none() -> None:
    choices: list[Any] = []
    with pytest.raises(RequestError, match="none of the 0 choices"):
        parse_choice("A.", choices)


def test_plain_text_reads_well() -> None:
    text = (
        f"There is one {ref('severe noise')}{box_text((1, 2, 30, 40))} affecting the sky.<|im_end|>"
    )
    assert plain_text(text) == "There is one severe noise affecting the sky."
