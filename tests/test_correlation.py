from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from idetex_edge.evaluation.correlation import (
    correlate,
    correlate_by_prefix,
    plcc,
    srcc,
)

values = st.lists(
    st.tuples(st.integers(-4, 4), st.floats(0, 1, allow_subnormal=False)), min_size=2, max_size=30
)


@given(values)
def test_as_scipy_has_it(pairs: list[tuple[int, float]]) -> None:
    """One side is full of ties."""
    tied, real = [float(a) for a, _ in pairs], [round(b, 6) for _, b in pairs]
    assume(np.ptp(tied) > 0 and np.ptp(real) > 0)
    spearman, pearson = stats.spearmanr(tied, real), stats.pearsonr(tied, real)
    assert srcc(tied, real) == pytest.approx(np.asarray(spearman)[0], abs=1e-9)
    assert plcc(tied, real) == pytest.approx(np.asarray(pearson)[0], abs=1e-9)


def test_monotone_scores_agree_in_rank() -> None:
    mos = [0.1, 0.2, 0.4, 0.9]
    assert srcc([1, 10, 100, 1000], mos) == pytest.approx(1)
    assert srcc([4, 3, 2, 1], mos) == pytest.approx(-1)
    assert 0 < plcc([1, 10, 100, 1000], mos) < 1


@pytest.mark.parametrize("first", [[], [1.0], [0.1, 0.1, 0.1]])
def test_where_it_is_undefined(first: list[float]) -> None:
    second = [float(i) for i in range(len(first))]
    assert math.isnan(srcc(first, second))
    assert math.isnan(plcc(second, first))
    assert correlate(first, second) is None


def test_by_what_stands_in_front_of_the_underscore() -> None:
    files = [
        "far/blur_1.jpg",
        "blur_2_b.jpg",
        "dark_1.png",
        "dark_2.png",
        "alone_1.png",
        "plain.png",
    ]
    found = correlate_by_prefix(files, [1, 2, 3, 4, 5, 6], [0.1, 0.2, 0.9, 0.8, 0.5, 0.5])
    assert {name: (round(c.srcc, 9), round(c.plcc, 9), c.count) for name, c in found.items()} == {
        "blur": (1.0, 1.0, 2),
        "dark": (-1.0, -1.0, 2),
    }
