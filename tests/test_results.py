import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from idetex_edge.errors import EngineError, ImageError, RequestError
from idetex_edge.overlay import draw_overlay
from idetex_edge.results import Answer, Assessment, Box, Description, Distortion, Score, scale_box
from idetex_edge.vocabulary import LEVELS

PHOTO = Image.fromarray(data.chelsea())
NOISE = Distortion("Noise", "severe", (100, 200, 300, 1000)).placed(451, 300)
ASSESSMENT = Assessment(
    score=40.0,
    mos=2.6,
    level="fair",
    level_probabilities=dict.fromkeys(LEVELS, 0.2),
    distortions=(NOISE,),
    key_distortions=(NOISE,),
    description="Grainy, très.",
    timings={"encode": 1.5},
    model="nano",
    width=451,
    height=300,
    path="a.png",
    image=PHOTO,
)

ANY_BOX = st.tuples(*[st.integers(-2000, 3000)] * 4)


@given(ANY_BOX, st.integers(1, 5000), st.integers(1, 5000))
def test_boxes_stay_in_the_picture(box: Box, width: int, height: int) -> None:
    x1, y1, x2, y2 = scale_box(box, width, height)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert scale_box((box[2], box[3], box[0], box[1]), width, height) == (x1, y1, x2, y2)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 5000))
def test_boxes_are_off_by_no_more_than_rounding(first: int, second: int, width: int) -> None:
    x1, _, x2, _ = scale_box((first, 0, second, 1000), width, 10)
    assert abs(x1 - min(first, second) * width / 1000) <= 1.5
    assert abs(x2 - max(first, second) * width / 1000) <= 1.5


def test_some_boxes() -> None:
    assert scale_box((0, 0, 1000, 1000), 640, 428) == (0, 0, 640, 428)
    assert scale_box((250, 500, 750, 1000), 640, 428) == (160, 214, 480, 428)
    assert scale_box((1000, 1000, 1000, 1000), 640, 428) == (639, 427, 640, 428)
    assert scale_box((500, 500, 500, 500), 1, 1) == (0, 0, 1, 1)


def test_a_distortion_finds_its_place() -> None:
    written = Distortion("Noise", "minor", (900, 100, 100, 500))
    assert written.box is None
    placed = written.placed(200, 100)
    assert placed == replace(written, box_1000=(100, 100, 900, 500), box=(20, 10, 180, 50))
    assert written.confidence == 1.0


WEIGHTS = st.lists(st.floats(0, 1e3), min_size=5, max_size=5).filter(lambda w: sum(w) > 1e-3)


@given(WEIGHTS)
def test_scores_and_levels_agree(weights: list[float]) -> None:
    score = Score.from_probabilities(weights)
    expected = float(np.average(np.arange(1, 6), weights=weights))
    assert score.mos == pytest.approx(expected)
    assert score.score == pytest.approx((expected - 1) * 25)
    assert 0 <= score.score <= 100
    nearest = min(abs(score.mos - (i + 1)) for i in range(5))
    assert abs(score.mos - (LEVELS.index(score.level) + 1)) == nearest
    assert sum(score.level_probabilities.values()) == pytest.approx(1)
    assert list(score.level_probabilities) == list(LEVELS)


def test_certain_scores() -> None:
    for i, level in enumerate(LEVELS):
        score = Score.from_probabilities(list(np.eye(5, dtype=np.float32)[i]))
        assert (score.score, score.mos, score.level) == (25 * i, i + 1, level)
        json.dumps(score.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [1.0] * 4,
        [0.0] * 5,
        [float("nan")] * 5,
        [1.0, 1.0, float("nan"), 1.0, 1.0],
        [1.0, 1.0, 1.0, 1.0, -1.0],
        [float("inf"), 1.0, 1.0, 1.0, 1.0],
    ],
)
def test_what_are_no_probabilities(weights: list[float]) -> None:
    with pytest.raises(EngineError, match="no probabilities"):
        Score.from_probabilities(weights)


def test_the_json_form_of_an_assessment() -> None:
    text = ASSESSMENT.to_json()
    assert "\n" not in text
    assert "très" in text
    read = json.loads(text)
    assert read == ASSESSMENT.to_dict()
    assert read["distortions"] == [
        {
            "type": "Noise",
            "severity": "severe",
            "box": [45, 60, 135, 300],
            "box_1000": [100, 200, 300, 1000],
            "confidence": 1.0,
        }
    ]
    assert set(read) == set(Assessment.__slots__) - {"image"}
    assert json.loads(ASSESSMENT.to_json(indent=2)) == read


def test_an_assessment_that_is_no_number_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(ASSESSMENT, score=float("nan")).to_json()


def test_the_picture_takes_no_part_in_equality_and_printing() -> None:
    assert replace(ASSESSMENT, image=None) == ASSESSMENT
    assert "image" not in repr(ASSESSMENT)


def test_results_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ASSESSMENT.score = 3.0  # pyright: ignore[reportAttributeAccessIssue]


def test_an_overlay_needs_a_picture() -> None:
    want = draw_overlay(PHOTO, ASSESSMENT.distortions, score=40.0, level="fair")
    assert ASSESSMENT.overlay() == want
    bare = replace(ASSESSMENT, image=None)
    assert bare.overlay(np.asarray(PHOTO)) == want
    with pytest.raises(RequestError, match="pass one"):
        bare.overlay()
    with pytest.raises(ImageError):
        bare.overlay("missing.png")


def test_the_json_forms_of_the_rest() -> None:
    answer = Answer("Noise", 1, (0.25, 0.75))
    assert answer.to_dict() == {"choice": "Noise", "index": 1, "probabilities": [0.25, 0.75]}
    description = Description("text", (NOISE,), (), None)
    assert description.to_dict() == {
        "text": "text",
        "distortions": [NOISE.to_dict()],
        "key_distortions": [],
        "level": None,
    }
