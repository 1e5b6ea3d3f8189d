"""The challenge's rules on cases worked out by hand, and against a second implementation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idetex_edge.errors import RequestError
from idetex_edge.evaluation.average_precision import Mark, average_precisions
from idetex_edge.evaluation.benchmark import Benchmark, Label, Picture, Question, Region
from idetex_edge.evaluation.scoring import score
from idetex_edge.evaluation.submission import Submission
from idetex_edge.results import Box

HERE: Box = (0, 0, 100, 100)
NEAR: Box = (0, 0, 100, 60)
FAR: Box = (500, 500, 900, 900)


def labels(*given: tuple[str, Box] | tuple[str, Box, float]) -> tuple[Label, ...]:
    return tuple(Label(name, box, *(rest or [0])) for name, box, *rest in given)


def found(*given: tuple[str, Box]) -> list[dict[str, Any]]:
    return [{"distortion": name, "coordinates": list(box)} for name, box in given]


def picture(image: str, *given: tuple[str, Box] | tuple[str, Box, float]) -> Picture:
    return Picture(0, image, Path(image), labels(*given), "fair")


def region(image: str, *given: tuple[str, Box]) -> Region:
    return Region(0, image, "?", HERE, labels(*given))


def grounded(image: str, kind: str, *given: tuple[str, Box]) -> dict[str, Any]:
    return {"image": image, "question_type": kind, "distortions": found(*given)}


def in_region(image: str, *given: tuple[str, Box]) -> dict[str, Any]:
    return grounded(image, "region-perception", *given)


def in_picture(image: str, *given: tuple[str, Box]) -> dict[str, Any]:
    return grounded(image, "distortion-detection", *given)


def described(
    image: str,
    *given: tuple[str, Box],
    keys: list[dict[str, Any]] | None = None,
    level: str = "fair",
) -> dict[str, Any]:
    return {
        "image": image,
        "all_distortions": found(*given),
        "key_distortions": keys or [],
        "image_quality": level,
    }


def scored(
    *,
    pictures: tuple[Picture, ...] = (),
    regions: tuple[Region, ...] = (),
    questions: tuple[Question, ...] = (),
    grounding: tuple[dict[str, Any], ...] = (),
    description: tuple[dict[str, Any], ...] = (),
    perception: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    benchmark = Benchmark(Path(), pictures, regions, questions)
    return score(benchmark, Submission(perception, grounding, description)).to_dict()


def ap(labelled: list[Mark], predicted: list[Mark]) -> float:
    return average_precisions(labelled, predicted)["Noise"]


def test_average_precision_follows_the_order_of_the_file() -> None:
    right, wrong = Mark("a", "Noise", NEAR), Mark("a", "Noise", FAR)
    labelled = [Mark("a", "Noise", HERE)]
    assert ap(labelled, [right]) == 1.0
    assert ap(labelled, [right, wrong]) == 1.0
    assert ap(labelled, [wrong, right]) == 0.5


def test_a_second_hit_on_a_taken_box_is_wrong_even_where_another_box_would_do() -> None:
    """Of two nested labels both predictions lie nearest to the first."""
    labelled = [Mark("a", "Noise", HERE), Mark("a", "Noise", NEAR)]
    predicted = [Mark("a", "Noise", HERE), Mark("a", "Noise", HERE), Mark("a", "Noise", NEAR)]
    assert ap(labelled, predicted) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_predictions_of_one_picture_stand_together() -> None:
    """Pictures come in the order of their first prediction of any class."""
    labelled = [Mark("a", "Noise", HERE), Mark("b", "Noise", HERE)]
    first = [Mark("a", "Blur", HERE), Mark("b", "Noise", FAR), Mark("a", "Noise", HERE)]
    assert ap(labelled, first) == 0.5
    assert ap(labelled, first[1:]) == 0.25


def test_half_an_overlap_is_a_hit_and_boxes_of_other_pictures_are_not() -> None:
    labelled = [Mark("a", "Noise", HERE)]
    assert ap(labelled, [Mark("a", "Noise", (0, 0, 100, 50))]) == 1.0
    assert ap(labelled, [Mark("a", "Noise", (0, 0, 100, 49))]) == 0.0
    assert ap(labelled, [Mark("b", "Noise", HERE)]) == 0.0


def test_classes_of_either_side_count_in_the_mean() -> None:
    found = scored(
        pictures=(picture("a", ("Noise", HERE), ("Low clarity", HERE)),),
        grounding=(in_picture("a", ("Noise", HERE), ("Motion blur", HERE)),),
    )
    assert found["Distortion AP by class"] == {"Low clarity": 0, "Motion blur": 0, "Noise": 1}
    assert found["Distortion mAP"] == pytest.approx(1 / 3)


def test_nothing_at_all_scores_nothing() -> None:
    assert scored()["Final Score"] == 0.0


def test_names_are_compared_as_written_but_for_descriptions() -> None:
    found = scored(
        pictures=(picture("a", ("Low_clarity", HERE)),),
        regions=(region("a", ("Low_clarity", HERE)),),
        grounding=(in_region("a", ("low clarity", HERE)),),
        description=(described("a", ("LOW clarity ", HERE)),),
    )
    assert found["Region mAP"] == found["Distortion mAP"] == 0.0
    assert found["Description AP by class"] == {"low clarity": 1.0}


def test_no_distortion_is_left_out_of_regions_only() -> None:
    nothing = ("No distortion", HERE)
    found = scored(
        pictures=(picture("a", ("Noise", HERE), nothing),),
        regions=(region("a", ("Noise", HERE), nothing),),
        grounding=(in_region("a", ("Noise", HERE), nothing),),
    )
    assert found["Region AP by class"] == {"Noise": 1.0}
    assert found["Distortion AP by class"] == {"No distortion": 1.0, "Noise": 1.0}


def test_answers_about_regions_count_for_the_picture_too() -> None:
    """The picture's own answer comes second and hits a box already taken."""
    found = scored(
        pictures=(picture("a", ("Noise", HERE), ("Noise", FAR)),),
        regions=(region("a", ("Noise", HERE)), region("a", ("Noise", HERE))),
        grounding=(in_region("a", ("Noise", HERE)), in_picture("a", ("Noise", HERE))),
    )
    assert found["Region mAP"] == 0.5, "two regions share one pool"
    assert found["Distortion mAP"] == 0.5


def test_labels_without_a_place_are_no_boxes() -> None:
    unplaced = Picture(0, "a", Path(), (Label("Noise", None, 9), Label("Noise", HERE, 1)), "fair")
    keys = found(("noise", HERE))
    result = scored(
        pictures=(unplaced,),
        grounding=(in_picture("a", ("Noise", HERE)),),
        description=(described("a", keys=keys),),
    )
    assert result["Distortion mAP"] == 1.0
    assert result["Key Distortion Accuracy"] == 0.0


def test_key_distortions_are_counted_over_those_predicted() -> None:
    pictures = (
        picture("a", ("Noise", HERE, 40), ("Motion blur", FAR, 40), ("Low clarity", HERE, 10)),
        picture("b", ("Noise", HERE, 5)),
        picture("c"),
    )
    described_ = (
        described("a", keys=found(("noise", HERE), ("motion_blur", FAR), ("low clarity", HERE))),
        described("b", keys=[]),
        described("c", keys=found(("noise", HERE))),
        described("d", keys=found(("noise", HERE))),
    )
    result = scored(pictures=pictures, description=described_)
    assert result["Key Distortion Accuracy"] == pytest.approx(2 / 3)


def test_a_key_distortion_must_overlap_by_more_than_half() -> None:
    pictures = (picture("a", ("Noise", HERE, 1)),)
    for bottom, expected in ((50, 0.0), (51, 1.0)):
        keys = found(("Noise", (0, 0, 100, bottom)))
        result = scored(pictures=pictures, description=(described("a", keys=keys),))
        assert result["Key Distortion Accuracy"] == expected


def test_levels_are_compared_as_written() -> None:
    pictures = (picture("a"), picture("b"), picture("c"))
    told = tuple(
        described(image, level=level)
        for image, level in zip("abcd", ("fair", "Fair", "poor", "fair"), strict=True)
    )
    assert scored(pictures=pictures, description=told)["Image Quality Accuracy"] == pytest.approx(
        1 / 3
    )


def ask(number: int, concern: str, right: str) -> Question:
    return Question(number, "a", "a", concern, "?", ("yes", "no", "unsure"), right)


def answer(number: int, text: str) -> dict[str, Any]:
    return {"id": number, "candidates": ["yes", "no", "unsure"], "pred_ans": text}


def test_the_first_letter_of_an_answer_counts_and_ids_match_it_to_its_question() -> None:
    questions = (ask(2, "type", "no"), ask(10, "type", "yes"), ask(1, "position", "unsure"))
    answers = (answer(1, " C. unsure"), answer(2, "B"), answer(10, "Because of noise"))
    found = scored(questions=questions, perception=answers)
    assert found["Perception Accuracy"] == pytest.approx(2 / 3)
    assert found["Perception Accuracy by concern"] == {"type": 0.5, "position": 1.0}


@pytest.mark.parametrize("text", ["", "D.", "b", "7"])
def test_an_answer_that_picks_no_candidate(text: str) -> None:
    with pytest.raises(RequestError, match="question 1 is answered by"):
        scored(questions=(ask(1, "type", "no"),), perception=(answer(1, text),))


def test_a_question_without_an_answer() -> None:
    with pytest.raises(RequestError, match="question 1"):
        scored(questions=(ask(1, "type", "no"),))


def test_the_final_score_is_the_sum() -> None:
    found = scored(
        pictures=(picture("a", ("Noise", HERE, 1)),),
        regions=(region("a", ("Noise", HERE)),),
        questions=(ask(1, "type", "no"),),
        grounding=(in_picture("a", ("Noise", HERE)), in_region("a", ("Noise", HERE))),
        description=(described("a", ("noise", HERE), keys=found_noise()),),
        perception=(answer(1, "B."),),
    )
    assert list(found)[:7] == [
        "Final Score",
        "Perception Accuracy",
        "Region mAP",
        "Distortion mAP",
        "Description mAP",
        "Key Distortion Accuracy",
        "Image Quality Accuracy",
    ]
    assert [found[key] for key in list(found)[:7]] == [6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def found_noise() -> list[dict[str, Any]]:
    return found(("noise", HERE))


def box_at(corner: int) -> Box:
    return (corner, 0, corner + 10, 10)


marks = st.builds(
    Mark, st.sampled_from("abc"), st.sampled_from(("x", "y")), st.integers(0, 8).map(box_at)
)


def exact(labelled: list[Mark], predicted: list[Mark], name: str) -> Fraction:
    """Average precision in fractions: for each hit, the best precision from there on."""
    images = list(dict.fromkeys(mark.image for mark in predicted))
    mine = [m for image in images for m in predicted if m.image == image and m.name == name]
    theirs = [label for label in labelled if label.name == name]
    free = [True] * len(theirs)
    precisions: list[Fraction] = []
    hits: list[int] = []
    for rank, mark in enumerate(mine):
        # Boxes are 10 wide: the nearest is the one whose corner is, the earlier of equals.
        ranked = sorted(
            (abs(label.box[0] - mark.box[0]), i)
            for i, label in enumerate(theirs)
            if label.image == mark.image
        )
        # An overlap of 10 - d in a union of 10 + d is half of it or more up to d = 3.
        if ranked and ranked[0][0] <= 3 and free[ranked[0][1]]:
            free[ranked[0][1]] = False
            hits.append(rank)
        precisions.append(Fraction(len(hits), rank + 1))
    if not theirs:
        return Fraction(0)
    return sum((max(precisions[hit:]) for hit in hits), Fraction(0)) / len(theirs)


@given(st.lists(marks, max_size=12), st.lists(marks, max_size=16))
def test_against_a_second_implementation(labelled: list[Mark], predicted: list[Mark]) -> None:
    found = average_precisions(labelled, predicted)
    assert list(found) == sorted({mark.name for mark in labelled + predicted})
    for name, value in found.items():
        assert value == pytest.approx(float(exact(labelled, predicted, name)), abs=1e-12)
