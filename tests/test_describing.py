"""Descriptions as the runtime gives them: each distortion once."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from idetex_edge.describing import read_description
from idetex_edge.parsing import parse_description
from idetex_edge.results import Box, Distortion
from idetex_edge.vocabulary import QUALITY_SENTENCE, box_text
from tests.test_parsing import FOUND, description_text, ref

_NEAR = Distortion("Noise", "severe", (0, 0, 500, 500))
_FAR: Box = (510, 510, 990, 990)


def _described(*keys: Distortion) -> str:
    told = " and ".join(
        f"{ref(f'{key.severity} {key.type.lower()}')}{box_text(key.box_1000)}" for key in keys
    )
    return (
        f"A dark scene.\nThere is one {ref('severe noise')}{box_text(_NEAR.box_1000)} on the left."
        f"\nThe {told} matter most.\n{QUALITY_SENTENCE} poor."
    )


def test_a_key_distortion_is_the_one_that_was_described() -> None:
    copied = replace(_NEAR, severity="moderate", box_1000=(3, 0, 480, 620))
    elsewhere = replace(_NEAR, severity="minor", box_1000=_FAR)
    another = replace(_NEAR, type="Low clarity")
    got = read_description(_described(copied, elsewhere, another), 200, 100)
    expected = tuple(each.placed(200, 100) for each in (_NEAR, elsewhere, another))
    assert got.distortions == got.key_distortions == expected
    assert len(parse_description(got.text).distortions) == 4


def test_of_several_the_nearest_is_meant() -> None:
    nearer = replace(_NEAR, box_1000=(0, 0, 500, 600))
    text = _described(replace(_NEAR, box_1000=(0, 0, 500, 610)))
    text = text.replace("on the left", f"and {ref('severe noise')}{box_text(nearer.box_1000)}")
    got = read_description(text, 100, 100)
    assert got.key_distortions == (nearer.placed(100, 100),)
    assert got.distortions == (_NEAR.placed(100, 100), nearer.placed(100, 100))


@given(st.lists(FOUND, unique=True), st.data())
def test_exact_copies_stay_as_they_are_parsed(found: list[Distortion], draw: st.DataObject) -> None:
    keys = draw.draw(st.lists(st.sampled_from(found), unique=True)) if found else []
    text = description_text(found, keys, "fair")
    assert read_description(text, 640, 480) == parse_description(text).placed(640, 480)


def test_without_a_verdict_nothing_is_said_again() -> None:
    text = _described(replace(_NEAR, box_1000=(3, 0, 480, 620))).partition(QUALITY_SENTENCE)[0]
    assert len(read_description(text, 100, 100).distortions) == 2
    assert read_description("", 100, 100).distortions == ()
