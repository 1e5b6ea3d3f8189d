"""Figures as rows, the form in which they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from idetex_edge.measuring.scenarios import UNITS

_RATES: Final = frozenset({"tok/s"})
"""Units of which more is better."""

_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Fields stand in the order in which they are kept as JSON.

    scenario: as in `SCENARIOS`, or "all" for what does not depend on one. size: "448x448", or "".
    engine: an engine of ours or a peer. median, low, high: of the repeats. ratio_to_fastest_peer:
    how many times better than the best peer, None without peers. roofline_fraction: the share of
    what the machine's measured rates allow, None where no such limit is known.
    """

    scenario: str
    size: str
    engine: str
    model: str
    metric: str
    median: float
    low: float
    high: float
    unit: str
    ratio_to_fastest_peer: float | None = None
    roofline_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What a series of figures belongs to."""

    scenario: str
    size: str
    engine: str
    model: str
    metric: str


def summarise(
    series: Mapping[Place, Sequence[float]],
    peers: frozenset[str],
    limits: Mapping[Place, float],
) -> list[Row]:
    """Make a row of each series, in order.

    peers: which of the engines are peers. limits: the best figures that the machine allows.
    """
    middles = {place: median(values) for place, values in series.items()}
    return [
        Row(
            place.scenario,
            place.size,
            place.engine,
            place.model,
            place.metric,
            _rounded(middles[place]),
            _rounded(min(values)),
            _rounded(max(values)),
            UNITS[place.metric],
            _rounded_or_none(_ratio(place, middles, peers)),
            _rounded_or_none(_fraction(place, middles, limits)),
        )
        for place, values in series.items()
    ]


def _ratio(place: Place, middles: Mapping[Place, float], peers: frozenset[str]) -> float | None:
    rivals = [
        value
        for other, value in middles.items()
        if other.engine in peers
        and (other.scenario, other.size, other.model, other.metric)
        == (place.scenario, place.size, place.model, place.metric)
    ]
    if not rivals:
        return None
    own = middles[place]
    return own / max(rivals) if UNITS[place.metric] in _RATES else min(rivals) / own


def _fraction(
    place: Place, middles: Mapping[Place, float], limits: Mapping[Place, float]
) -> float | None:
    if place not in limits:
        return None
    own = middles[place]
    return own / limits[place] if UNITS[place.metric] in _RATES else limits[place] / own


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded_or_none(value: float | None) -> float | None:
    return None if value is None else _rounded(value)
