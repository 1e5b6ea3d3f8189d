from __future__ import annotations

import pytest

from idetex_edge.confidence import box_confidences
from idetex_edge.vocabulary import BOX_END, BOX_START, OBJECT_REF_END, OBJECT_REF_START

Steps = list[tuple[str, float]]


def box(drawn: float = 1.0, corner: float = 0.01) -> Steps:
    """A box that was drawn with one probability, its corners with another."""
    return [(BOX_START, drawn), ("(", 1.0), ("123", corner), ("),(", 1.0), (BOX_END, 1.0)]


def group(opened: float = 1.0) -> Steps:
    return [(OBJECT_REF_START, opened), ("Severe", 0.02), (" noise", 1.0), (OBJECT_REF_END, 1.0)]


def confidences(steps: Steps) -> list[float]:
    return box_confidences([piece for piece, _ in steps], [chance for _, chance in steps])


HEADING: Steps = [("No", 0.8), ("ise", 0.5), (":\n", 1.0)]


def test_no_box() -> None:
    assert confidences([]) == []
    assert confidences([("No", 0.5), (" distortion", 1.0)]) == []


def test_naming_counts_and_corners_do_not() -> None:
    assert confidences([*HEADING, *group(), *box()]) == [0.4]


def test_each_further_box_is_a_decision() -> None:
    steps = [*HEADING, *group(), *box(), *box(0.5), *box(0.25)]
    assert confidences(steps) == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize("gap", [[], [("\n", 0.5)]])
def test_a_second_severity_goes_on_from_its_type(gap: Steps) -> None:
    opened = 0.5 if gap else 0.25
    steps = [*HEADING, *group(), *box(), *gap, *group(opened / 0.5 if gap else opened), *box()]
    expected = 0.4 * (0.5 if gap else 0.25)
    assert confidences(steps) == pytest.approx([0.4, expected])


def test_another_type_starts_anew() -> None:
    line: Steps = [("\n", 0.9), ("Blur", 0.7), (":\n", 1.0)]
    steps = [*HEADING, *group(), *box(), *line, *group(), *box(), *box(0.5)]
    assert confidences(steps) == pytest.approx([0.4, 0.63, 0.315])


def test_a_box_cut_short_is_none() -> None:
    assert confidences([*HEADING, *group(), *box(), *box(0.5)[:-1]]) == [0.4]
    assert confidences([*HEADING, *group(), *box(), ("\n", 0.5), ("Bl", 0.5)]) == [0.4]
