"""How well scores go with people's: rank (SRCC) and linear (PLCC) correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Agreement of `count` pairs: `srcc` and `plcc`, -1..1."""

    srcc: float
    plcc: float
    count: int


def plcc(first: Values, second: Values) -> float:
    """Pearson's linear correlation, -1..1, with no fitted curve before it.

    NaN where it is undefined: with fewer than two pairs, or where all values are equal.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    value = float((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)))
    return min(1.0, max(-1.0, value))


def srcc(first: Values, second: Values) -> float:
    """Spearman's rank correlation, -1..1; equal values share their average rank. NaN as `plcc`."""
    return plcc(_ranks(first), _ranks(second))


def _ranks(values: Values) -> npt.NDArray[np.float64]:
    _, group, counts = np.unique(
        np.asarray(values, np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def correlate(scores: Values, opinions: Values) -> Correlation | None:
    """Both correlations of scores with people's opinions; None where they are undefined."""
    linear = plcc(scores, opinions)
    if math.isnan(linear):
        return None
    return Correlation(srcc(scores, opinions), linear, len(scores))


def correlate_by_prefix(
    files: Sequence[str], scores: Sequence[float], opinions: Sequence[float]
) -> Mapping[str, Correlation]:
    """The same for the files of each series: what their names have in front of the first `_`.

    Series for which it is undefined are left out.
    """
    series: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        series.setdefault(PurePath(file).stem.partition("_")[0], []).append(index)
    found = {
        name: correlate([scores[i] for i in members], [opinions[i] for i in members])
        for name, members in sorted(series.items())
    }
    return {name: correlation for name, correlation in found.items() if correlation is not None}
