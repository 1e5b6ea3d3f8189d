"""What the kernels and the engine are to reach, as ratios within one run.

Beside transformers stand INT8 weights, captured graphs and one picture encoded once for all that is
asked of it; transformers computes in BF16, eager, and is asked one question after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.gpu.figures import Figures
from benchmarks.gpu.rows import Row


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to reach. of: reads it from what was measured; KeyError where that is missing."""

    name: str
    least: float
    of: Callable[[Mapping[str, Row], Figures], float]


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of a goal; ratio is None where it was not measured."""

    name: str
    least: float
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether it was reached; None where it was not measured."""
        return None if self.ratio is None else self.ratio >= self.least


def _share(name: str) -> Callable[[Mapping[str, Row], Figures], float]:
    return lambda rows, figures: rows[name].share


def _times(slow: str, fast: str) -> Callable[[Mapping[str, Row], Figures], float]:
    return lambda rows, figures: rows[slow].microseconds / rows[fast].microseconds


def _beside(name: str, peer: str) -> Callable[[Mapping[str, Row], Figures], float]:
    return lambda rows, figures: rows[name].peers[peer] / rows[name].microseconds


GOALS: Final = (
    Goal(
        "decode attention over INT8 keys and values, 8 x 8192: of copy bandwidth",
        0.80,
        _share("decode attention int8, 8 rows, 8192 each"),
    ),
    Goal(
        "8 forks of 1500 tokens: times as fast as without sharing",
        3.0,
        _times(
            "decode attention int8, 8 rows, 1564 each",
            "decode attention int8, 8 rows, 1500 shared and 64 own",
        ),
    ),
    Goal(
        "INT8 linear layer, one row, 4096 x 11008: of copy bandwidth",
        0.85,
        _share("linear int8, 1 x 4096 -> 11008"),
    ),
    Goal(
        "projector BF16: times as fast as torch.compile",
        1.2,
        _beside("projector bf16, 1024 tokens", "compiled"),
    ),
    Goal(
        "projector INT8: times as fast as torch.compile in FP16",
        1.8,
        _beside("projector int8, 1024 tokens", "compiled"),
    ),
    Goal(
        "decoding, Qwen2.5-VL-3B's shape, INT8: of what copy bandwidth allows",
        0.65,
        lambda rows, figures: figures.of_floor["3B"],
    ),
    Goal(
        "decoding, Qwen2.5-VL-3B's shape: times as fast as transformers",
        5.0,
        lambda rows, figures: figures.times("3B", "describe128", "decode"),
    ),
    Goal(
        "ask8, Qwen2.5-VL-3B's shape: times as fast as transformers",
        8.0,
        lambda rows, figures: figures.times("3B", "ask8", "end to end"),
    ),
)


def judged(rows: Mapping[str, Row], figures: Figures) -> list[Reached]:
    """Every goal, and what was reached."""
    found: list[Reached] = []
    for goal in GOALS:
        try:
            ratio = goal.of(rows, figures)
        except KeyError:
            ratio = None
        found.append(Reached(goal.name, goal.least, ratio))
    return found
