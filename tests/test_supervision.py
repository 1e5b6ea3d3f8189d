"""Questions and answers made from known truth: they parse back to it, and the keys are right."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.distortions.compose import Truth
from export.pool.appearance import Appearance
from export.supervision import choices, questions
from export.supervision.descriptions import full_description, scene_text, single_assessment
from export.supervision.example import Example
from export.supervision.grounding import detection, location, region_perception
from export.supervision.levels import level_of, level_probabilities
from export.supervision.places import PLACES, place_of, plain_name_of, reach_of
from export.supervision.truths import mirror, most_significant, within
from idetex_edge.parsing import parse_description, parse_grounding
from idetex_edge.vocabulary import DISTORTIONS, LEVELS, SEVERITIES

_LOOKS = Appearance(light=0.4, contrast=0.2, colour=0.1, warmth=0.08, detail=0.02)


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    x1, y1 = draw(st.integers(0, 800)), draw(st.integers(0, 800))
    x2, y2 = draw(st.integers(x1 + 60, 1000)), draw(st.integers(y1 + 60, 1000))
    area = (x2 - x1) * (y2 - y1) / 1e6
    kind, severity = draw(st.sampled_from(DISTORTIONS)), draw(st.sampled_from(SEVERITIES))
    return Truth(kind, severity, (x1, y1, x2, y2), area, "test")


def _facts(found: list[Truth]) -> set[tuple[str, str, tuple[int, int, int, int]]]:
    return {(t.type, t.severity, t.box) for t in found}


@given(st.lists(truths(), max_size=5))
def test_detection_answers_parse_back_to_the_truth(found: list[Truth]) -> None:
    parsed = parse_grounding(detection(found).answer)
    assert {(d.type, d.severity, d.box_1000) for d in parsed} == _facts(found)


@given(st.lists(truths(), min_size=1, max_size=5), st.integers())
def test_region_and_location_answers_are_what_lies_there(found: list[Truth], seed: int) -> None:
    region = region_perception(found, Random(seed))
    box = parse_grounding(f"Noise: {region.fields['region']}")[0].box_1000
    parsed = parse_grounding(region.answer)
    assert {(d.type, d.severity, d.box_1000) for d in parsed} == _facts(within(found, box))
    for d in parsed:
        assert box[0] <= d.box_1000[0] < d.box_1000[2] <= box[2]
        assert box[1] <= d.box_1000[1] < d.box_1000[3] <= box[3]
    located = location(found, Random(seed))
    kinds = {d.type.lower() for d in parse_grounding(located.answer)}
    assert kinds <= {located.fields["distortion"]}


@given(st.lists(truths(), max_size=4), st.sampled_from(LEVELS), st.integers())
def test_descriptions_parse_back_to_the_truth(found: list[Truth], level: str, seed: int) -> None:
    text = full_description(found, _LOOKS, level, Random(seed)).answer
    parsed = parse_description(text)
    assert parsed.level == level
    assert {(d.type, d.severity, d.box_1000) for d in parsed.distortions} == _facts(found)
    keys = {(d.type, d.severity, d.box_1000) for d in parsed.key_distortions}
    assert keys == (_facts(most_significant(found)) if found else set())


def _options(example: Example) -> list[str]:
    return [line[3:] for line in example.fields["options"].splitlines()]


def _chosen(example: Example) -> str:
    return _options(example)[ord(example.answer) - ord("A")]


@settings(max_examples=200)
@given(st.lists(truths(), max_size=4), st.integers())
def test_choices_have_one_right_answer(found: list[Truth], seed: int) -> None:
    present = {t.type for t in found}
    for maker in choices.CHOICES:
        example = maker(found, Random(seed))
        if example is None:
            continue
        options = _options(example)
        assert len(set(options)) == len(options) >= 2
        question, right = example.fields["question"], _chosen(example)
        if maker is choices.type_choice:
            wrong = set(options) - {right}
            if "not" in question:
                assert right not in present
                assert wrong <= present
            else:
                assert right in present
                assert not wrong & present
        if maker is choices.severity_choice:
            named = {t.severity.capitalize() for t in found if t.type.lower() in question}
            assert right in (named or {"Not visible"})
        if maker is choices.significance_choice:
            strongest = most_significant(found)
            assert right in {t.type for t in strongest}


def _named(answer: str) -> set[str]:
    return {kind for kind in DISTORTIONS if kind.lower() in answer}


@settings(max_examples=200)
@given(st.lists(truths(), max_size=4), st.integers())
def test_open_questions_are_answered_by_the_truth(found: list[Truth], seed: int) -> None:
    random = Random(seed)
    present = {t.type for t in found}
    assert _named(questions.which(found, random).answer) == present
    most = questions.which_most(found, random).answer
    keys = {f"{t.severity} {t.type.lower()}" for t in most_significant(found)}
    assert any(key in most for key in keys) if found else not _named(most)
    if there := questions.what_there(found, random):
        assert _named(there.answer)
        assert _named(there.answer) <= present
    if severe := questions.how_severe(found, random):
        (asked,) = _named(severe.fields["question"])
        grades = {t.severity for t in found if t.type == asked}
        said = {grade for grade in SEVERITIES if f" {grade}." in severe.answer}
        assert said == grades if grades else severe.answer.startswith("There is no ")
    if where := questions.where(found, random):
        (asked,) = _named(where.fields["question"])
        assert any(plain_name_of(place_of(t.box)) in where.answer for t in found if t.type == asked)


@given(st.lists(truths(), max_size=4), st.integers())
def test_one_distortion_is_assessed_alone(found: list[Truth], seed: int) -> None:
    said = single_assessment(found, Random(seed))
    of_type = [t for t in found if t.type.lower() == said.fields["distortion"]]
    parsed = parse_description(said.answer).distortions
    assert {(d.type, d.severity, d.box_1000) for d in parsed} == _facts(of_type)
    leads = any(key in of_type for key in most_significant(found))
    assert ("most significant" in said.answer) == leads


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_where_its_reach_is(place: str) -> None:
    assert place_of(reach_of(place)) == place


@given(st.lists(truths(), max_size=4), st.booleans(), st.booleans())
def test_mirroring_twice_changes_nothing(found: list[Truth], across: bool, down: bool) -> None:
    assert mirror(mirror(found, across, down), across, down) == found


@given(st.floats(1, 5))
def test_level_probabilities_average_to_the_score(mos: float) -> None:
    probabilities = level_probabilities(mos)
    assert sum(probabilities) == pytest.approx(1)
    mean = sum((i + 1) * p for i, p in enumerate(probabilities))
    assert mean == pytest.approx(mos, abs=0.36)
    assert level_of(mos) in LEVELS


def test_scenes_are_said_by_their_statistics() -> None:
    dark = Appearance(light=0.1, contrast=0.05, colour=0.01, warmth=0, detail=0)
    bright = Appearance(light=0.9, contrast=0.4, colour=0.3, warmth=-0.2, detail=0)
    assert scene_text(dark) == (
        "The image shows a very dark scene with low contrast and almost no color."
    )
    assert scene_text(bright) == (
        "The image shows a very bright scene with high contrast and vivid colors in cool tones."
    )
