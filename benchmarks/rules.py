"""How well plain rules answer questions and find boxes from what the vision tower sees.

    python benchmarks/rules.py --run RUN --bench BENCH

The tower of a training run (`RUN/vision.pt`, or `RUN/model.pt` where the joint stage has begun)
gives evidence of every cell (`export/training/evidence.py`), and a fixed rule for each kind of
question picks the candidate that it speaks for most; the largest patch of cells that show a
distortion is its box. Where the language model answers fewer questions right or finds fewer boxes,
it is what limits the model; where it does as well, the tower is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.measure import label, regionprops
from torch import Tensor

from export.pool.shards import CELL
from export.student.architecture import MAX_PIXELS, MIN_PIXELS
from export.supervision.places import PLACES, names_of, reach_of
from export.training.batches import normalise
from export.training.course import averaged_weights, put_into
from export.training.known import GRADES
from export.training.vision_stage import Witness
from idetex_edge.cli.script import run
from idetex_edge.cli.stages import showing_stages
from idetex_edge.errors import RequestError
from idetex_edge.evaluation.average_precision import Mark, average_precisions
from idetex_edge.evaluation.benchmark import Benchmark, Question, open_benchmark
from idetex_edge.evaluation.scoring import Tally, labelled_marks
from idetex_edge.image import load_image
from idetex_edge.preprocess import smart_resize
from idetex_edge.results import Box
from idetex_edge.vocabulary import BOX_SCALE, DISTORTIONS, SEVERITIES

Seen = npt.NDArray[np.float32]
"""Probabilities [rows, columns, 10, 3] of at least minor, at least moderate, severe, by cell."""

_KINDS: Final = {kind.lower(): index for index, kind in enumerate(DISTORTIONS)}
_PLACE_OF: Final = {name: place for place in PLACES for name in names_of(place)}
_WHOLE_BONUS: Final = 1.15
"""The whole picture is always less spoiled than its worst part; it wins where they are near."""

_SHOWN: Final = 0.4
_LEAST: Final = 0.03
"""A cell shows a distortion from this probability on; a patch is at least so much of a picture."""


def load_witness(run: Path) -> Witness:
    """The averaged tower and head of a run.

    Raises RequestError where it has none, ExportError where another version made them.
    """
    witness = Witness("nano")
    joint, alone = run / "model.pt", run / "vision.pt"
    if joint.exists():
        prefixes = {"model.model.visual.": "tower.", "witness.": "head."}
        put_into(witness, _renamed(averaged_weights(joint), prefixes), joint)
    elif alone.exists():
        weights = averaged_weights(alone)
        put_into(witness, {name: weights[name] for name in witness.state_dict()}, alone)
    else:
        raise RequestError(f"{run} holds neither model.pt nor vision.pt; give a training run")
    return witness


def _renamed(weights: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        new + name.removeprefix(old): weight
        for name, weight in weights.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }


@torch.no_grad()
def see(witness: Witness, path: Path) -> Seen:
    """What the tower makes of a picture, at the size a runtime would give it."""
    picture = load_image(path)
    height, width = smart_resize(picture.height, picture.width, CELL, MIN_PIXELS, MAX_PIXELS)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    evidence = witness(normalise(resized.transpose(2, 0, 1)[None]))[0, :, :GRADES].sigmoid()
    grid = (height // CELL, width // CELL, len(DISTORTIONS), len(SEVERITIES))
    return evidence.numpy().reshape(grid)


def _at(seen: Seen, place: str | None) -> Seen:
    if place is None:
        return seen
    x1, y1, x2, y2 = reach_of(place)
    rows, columns = seen.shape[:2]
    return seen[
        y1 * rows // BOX_SCALE : -(-y2 * rows // BOX_SCALE),
        x1 * columns // BOX_SCALE : -(-x2 * columns // BOX_SCALE),
    ]


def _strongest(seen: Seen, kind: int, grade: int = 0) -> float:
    """The mean over the tenth of the cells that show a distortion most."""
    cells = np.sort(seen[..., kind, grade], axis=None)
    return float(cells[-max(1, len(cells) // 10) :].mean())


def _longest_in(text: str, names: Mapping[str, object]) -> str | None:
    return max((name for name in names if name in text), key=len, default=None)


def _place_in(text: str) -> str | None:
    name = _longest_in(text, _PLACE_OF)
    return name and _PLACE_OF[name]


def speaks_for(seen: Seen, question: Question) -> list[float]:
    """How much speaks for each candidate, by the rule for this kind of question."""
    asked = question.question.rpartition("Here is the question:")[2].lower()
    candidates = [candidate.lower() for candidate in question.candidates]
    named, place = _longest_in(asked, _KINDS), _place_in(asked)
    if all(candidate in _KINDS for candidate in candidates):
        kinds = [_KINDS[candidate] for candidate in candidates]
        if " not " in asked:
            return [-_strongest(seen, kind) for kind in kinds]
        if question.concern == "significance":
            return [float(seen[..., kind, :].mean((0, 1)).sum()) for kind in kinds]
        if place is None:
            return [_strongest(seen, kind) for kind in kinds]
        return [float(_at(seen, place)[..., kind, 0].mean()) for kind in kinds]
    if named is None:
        return [0.0] * len(candidates)
    kind = _KINDS[named]
    if question.concern == "severity":
        reached = [1.0, *(_strongest(_at(seen, place), kind, g) for g in range(3)), 0.0]
        grades = ("not visible", *SEVERITIES)
        share = {grade: reached[i] - reached[i + 1] for i, grade in enumerate(grades)}
        return [share.get(candidate, -1.0) for candidate in candidates]
    places = [_place_in(candidate) for candidate in candidates]
    bonus = [_WHOLE_BONUS if place == "whole" else 1.0 for place in places]
    shares = [float(_at(seen, place)[..., kind, 0].mean()) for place in places]
    return [share * more for share, more in zip(shares, bonus, strict=True)]


def boxes_in(seen: Seen) -> Iterator[tuple[str, Box]]:
    """For each distortion the box (0..1000) of the largest patch of cells that show it, if any."""
    rows, columns = seen.shape[:2]
    for kind, name in enumerate(DISTORTIONS):
        patches: list[Any] = regionprops(label(seen[..., kind, 0] > _SHOWN, connectivity=1))
        largest = max(patches, key=attrgetter("area"), default=None)
        if largest is not None and largest.area >= _LEAST * rows * columns:
            y1, x1, y2, x2 = largest.bbox
            edges = (x1 / columns, y1 / rows, x2 / columns, y2 / rows)
            left, top, right, bottom = (round(edge * BOX_SCALE) for edge in edges)
            yield name, (left, top, right, bottom)


def _box_precisions(benchmark: Benchmark, seen: Mapping[str, Seen]) -> Mapping[str, float]:
    found = [
        Mark(picture.image, name, box)
        for picture in benchmark.pictures
        for name, box in boxes_in(seen[picture.image])
    ]
    return average_precisions(labelled_marks(benchmark.pictures), found)


def _print(title: str, heading: str, rows: Mapping[str, tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(heading.split()):
        table.add_column(name, justify="right" if number else "left")
    for row, values in rows.items():
        table.add_row(row, *values)
    Console().print(table)


def rules(
    run: Annotated[Path, typer.Option(help="Run folder of `python -m export train`.")],
    bench: Annotated[Path, typer.Option(help="Benchmark in ViDA-UGC-Bench's form.")],
) -> None:
    """Answer a benchmark's questions and find its boxes by fixed rules on the tower's evidence."""
    benchmark = open_benchmark(bench)
    witness = load_witness(run)
    seen: dict[str, Seen] = {}
    with showing_stages() as advance:
        for done, picture in enumerate(benchmark.pictures):
            advance("looking", done, len(benchmark.pictures))
            seen[picture.image] = see(witness, picture.path)
        advance("looking", len(benchmark.pictures), len(benchmark.pictures))
    tallies: dict[str, Tally] = {}
    for question in benchmark.questions:
        best = int(np.argmax(speaks_for(seen[question.image], question)))
        right = question.candidates[best] == question.answer
        for row in (question.concern, "all"):
            tally = tallies.get(row, Tally(0, 0))
            tallies[row] = Tally(tally.right + right, tally.total + 1)
    answered = {
        row: (f"{tallies[row].share:.3f}", str(tallies[row].total))
        for row in (*sorted(set(tallies) - {"all"}), "all")
    }
    _print("Answered right by rules on the tower's evidence", "concern right questions", answered)
    precisions = _box_precisions(benchmark, seen)
    found = {name: (f"{precision:.3f}",) for name, precision in precisions.items()}
    mean = float(np.mean(list(precisions.values())))
    _print("Boxes found by rules", "class AP", {**found, "mean": (f"{mean:.3f}",)})


if __name__ == "__main__":
    run(rules)
