"""How time grows with image tokens, questions, and the length of an answer.

    python benchmarks/growth.py [--bundle BUNDLE] [--engine onnx:cpu] [--threads N] [--json OUT]

Each series varies one thing: the picture (64 to 2,048 image tokens, a score asked), the number of
questions (1 to 32) and the tokens of a description (16 to 512) on a 448 x 448 picture. The slope is
that of the straight line on which the first points lie to within a tenth; the knee is the first
point beyond it, if there is one. A bundle that takes no pictures of 2,048 tokens is measured with
its limit raised: positions and windows are computed as they are needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from idetex_edge.asking import Asker
from idetex_edge.assessor import NANO
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.cli.options import EngineName, Threads
from idetex_edge.cli.script import run
from idetex_edge.cli.stages import showing_stages
from idetex_edge.engines import load_engine
from idetex_edge.image import MAX_PIXELS
from idetex_edge.measuring.machine import describe_machine
from idetex_edge.measuring.report import figure
from idetex_edge.measuring.scenarios import SCENARIOS, Scenario, description, picture, questions
from idetex_edge.measuring.worker import Ours

_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """One case: its number on the axis, the picture's size, what is asked."""

    at: int
    size: tuple[int, int]
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Growth:
    """A series: milliseconds end to end by number, what one more costs, and where that changes."""

    axis: str
    times: dict[int, float]
    slope: float
    knee: int | None


def series(side: int) -> dict[str, list[Point]]:
    """All points; `side` is the edge of one image token in pixels."""
    sides = {64: (8, 8), 128: (16, 8), 256: (16, 16), 512: (32, 16), 1024: (32, 32)}
    sides[2048] = (64, 32)
    usual = (448, 448)
    return {
        "image tokens": [
            Point(tokens, (columns * side, rows * side), SCENARIOS["score"])
            for tokens, (columns, rows) in sides.items()
        ],
        "questions": [
            Point(count, usual, Scenario(questions(count))) for count in (1, 2, 4, 8, 16, 32)
        ],
        "answer tokens": [
            Point(length, usual, description(length)) for length in (16, 32, 64, 128, 256, 512)
        ],
    }


def fitted(times: Mapping[int, float]) -> tuple[float, int | None]:
    """The slope of the longest straight beginning, and the first number off that line.

    A beginning is straight when the least-squares line through it misses no point by over a tenth.
    Two points always are.
    """
    numbers = list(times)
    slope = 0.0
    for count in range(2, len(numbers) + 1):
        head = numbers[:count]
        rise, base = _line(head, [times[n] for n in head])
        if any(abs(base + rise * n - times[n]) > _TOLERANCE * times[n] for n in head):
            return slope, head[-1]
        slope = rise
    return slope, None


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Least squares: slope, and value at zero."""
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle_x) ** 2 for a in x)
    slope = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / spread
    return slope, middle_y - slope * middle_x


def with_room(bundle: Bundle, pixels: int) -> Bundle:
    """The same bundle, taking pictures of at least so many pixels."""
    own = bundle.manifest.preprocessor
    wider = replace(own, max_pixels=max(own.max_pixels, pixels))
    return replace(bundle, manifest=replace(bundle.manifest, preprocessor=wider))


def growth(
    bundle: Annotated[Path, typer.Option(help="Bundle folder; nano if not given.")] = NANO,
    engine: EngineName = "onnx:cpu",
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each figure is taken.")] = 3,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Measure how time grows with what is asked."""
    opened = open_bundle(bundle)
    own = opened.manifest.preprocessor
    side = own.patch_size * own.merge_size
    opened = with_room(opened, 2048 * side**2)
    cores = threads or os.cpu_count() or 1
    loaded = load_engine(engine, opened, cores)
    ours = Ours(Asker(opened, loaded, MAX_PIXELS))
    found: list[Growth] = []
    with showing_stages() as advance, TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        for axis, points in series(side).items():
            taken: dict[int, list[float]] = {point.at: [] for point in points}
            # The first turn warms up and is not counted.
            for turn in range(repeats + 1):
                advance(axis, turn, repeats + 1)
                for point in points:
                    picture(*point.size, turn).save(path)
                    measured = ours.run(point.scenario, path).figures["end to end"]
                    if turn:
                        taken[point.at].append(measured)
            times = {at: round(median(figures), 2) for at, figures in taken.items()}
            slope, knee = fitted(times)
            found.append(Growth(axis, times, round(slope, 4), knee))
    if out is not None:
        data = {"machine": describe_machine(cores), "series": [asdict(one) for one in found]}
        out.write_text(json.dumps(data, indent=1) + "\n")
    for one in found:
        knee = "none" if one.knee is None else f"at {one.knee}"
        table = Table(
            title=f"{one.axis}: {one.slope:.3g} ms each, knee {knee}",
            title_justify="left",
            box=None,
        )
        for at in one.times:
            table.add_column(str(at), justify="right")
        table.add_row(*(figure(time) for time in one.times.values()))
        Console(highlight=False).print(table)


if __name__ == "__main__":
    run(growth)
