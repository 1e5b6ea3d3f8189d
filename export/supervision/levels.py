"""Pseudo mean opinion scores for spoiled pictures, and the levels they stand for.

How much of the original is left is judged twice: by full-reference metrics, fitted once to our
severities (least squares over 19,200 pictures, r = 0.83), and by the severities and areas
themselves. The original's own human score is the ceiling.
"""

import math
from collections.abc import Sequence
from typing import Final

from export.pool.shards import Record
from export.supervision.truths import SEVERITY_LOSS
from idetex_edge.vocabulary import LEVELS

_TYPICAL_CLEAN_MOS: Final = 4.2
_METRIC_FIT: Final = (0.464, -2.014, 1.053, 0.606, 2.724, -1.336, -0.516)
_SPREAD: Final = 0.45


def fidelity_from_metrics(record: Record) -> float:
    """What full-reference metrics say is left of the original, 0..1."""
    f = record.fidelity
    terms = (
        1.0,
        f.ssim_half,
        f.ssim_quarter,
        f.tone,
        f.ssim_half**2,
        f.ssim_quarter**2,
        math.sqrt(f.tone),
    )
    fitted = sum(weight * term for weight, term in zip(_METRIC_FIT, terms, strict=True))
    return min(1.0, max(0.0, fitted))


def pseudo_mos(record: Record) -> float:
    """The score 1..5 that people would give the spoiled picture, as well as can be guessed."""
    kept = 1.0
    for truth in record.truths:
        kept *= 1 - SEVERITY_LOSS[truth.severity] * math.sqrt(truth.area)
    fidelity = 0.5 * (kept + fidelity_from_metrics(record)) if record.truths else 1.0
    ceiling = record.clean_mos or _TYPICAL_CLEAN_MOS
    return 1 + (ceiling - 1) * fidelity


def level_of(mos: float) -> str:
    """The level nearest to a MOS."""
    return LEVELS[min(len(LEVELS) - 1, max(0, round(mos) - 1))]


def level_probabilities(mos: float) -> tuple[float, ...]:
    """A narrow bell over the five levels whose mean is about `mos` (Q-Align learns one-hot)."""
    weights = [math.exp(-((mos - 1 - i) ** 2) / (2 * _SPREAD**2)) for i in range(len(LEVELS))]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def mos_of(probabilities: Sequence[float]) -> float:
    """The MOS that probabilities of the five levels, worst first, come to."""
    return sum((i + 1) * probability for i, probability in enumerate(probabilities))
