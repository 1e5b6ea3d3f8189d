from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.growth import fitted, series

SIDE = 28


@given(st.floats(0.01, 100), st.floats(0, 1000))
def test_a_straight_line_has_its_slope_and_no_knee(slope: float, base: float) -> None:
    times = {n: base + slope * n for n in (1, 2, 4, 8, 16, 32)}
    found, knee = fitted(times)
    assert found == pytest.approx(slope)
    assert knee is None


def test_a_bend_is_the_knee_and_the_slope_is_that_before_it() -> None:
    times = {n: 5.0 + 2.0 * n for n in (1, 2, 4, 8)} | {16: 80.0, 32: 400.0}
    found, knee = fitted(times)
    assert found == pytest.approx(2)
    assert knee == 16


def test_points_are_what_they_say() -> None:
    for point in series(SIDE)["image tokens"]:
        width, height = point.size
        assert width * height == point.at * SIDE**2
    for point in series(SIDE)["questions"]:
        assert len(set(map(str, point.scenario.requests))) == point.at
    for point in series(SIDE)["answer tokens"]:
        assert point.scenario.forced
        assert [request.limit for request in point.scenario.requests] == [point.at]
