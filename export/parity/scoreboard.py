"""The challenge's scores of a bundle beside those of its checkpoint in float32.

Both run in ONNX Runtime on the same benchmark, through everything that users run: grammar, parsing,
boxes. A row may fall by `FALL`, or by what `ITEMS` of its items are worth where that is more: a row
of 120 pictures moves by 0.008 with a single one, which says nothing of a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from export.bundling.graphs import Recipe
from export.bundling.write import write_draft
from export.calibration.plan import Plan
from export.graphs.write import Advance
from export.targets import find_target
from idetex_edge.assessor import Assessor
from idetex_edge.evaluation.benchmark import Benchmark, Label, open_benchmark
from idetex_edge.evaluation.evaluate import evaluate
from idetex_edge.evaluation.scoring import Scores

FALL: Final = 0.01
ITEMS: Final = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One score, 0..1, of both; and how far it may fall."""

    float32: float
    bundle: float
    may_fall: float

    @property
    def fallen(self) -> bool:
        """Whether it has fallen further; NaN has."""
        return not self.float32 - self.bundle <= self.may_fall


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """All rows, by the challenge's names."""

    pictures: int
    rows: Mapping[str, Row]

    def to_dict(self) -> dict[str, Any]:
        """Give the entry of `parity.json`."""
        return asdict(self)

    def shortfalls(self) -> Sequence[str]:
        """Say which rows have fallen too far, with the numbers."""
        return [
            f"{name} falls from {row.float32:.4f} in float32 to {row.bundle:.4f}, by more than "
            f"{row.may_fall:.4f}"
            for name, row in self.rows.items()
            if row.fallen
        ]


class Held:
    """A benchmark that plans of one recipe are held to, which differ in what stays in float.

    None answers it twice, and float32 once for all of them.
    """

    def __init__(self, recipe: Recipe, bench: Path, advance: Advance) -> None:
        """Open the benchmark.

        Raises RequestError when it is no good (see `idetex_edge.evaluation.benchmark`).
        """
        self._recipe, self._bench, self._advance = recipe, bench, advance
        self._benchmark = open_benchmark(bench)
        self._exact: Scores | None = None
        self._found: dict[frozenset[str], Scoreboard] = {}

    def scoreboard(self, plan: Plan) -> Scoreboard:
        """Evaluate the recipe's graphs by a plan beside float32 ones of its checkpoint."""
        kept = frozenset(plan.kept)
        if kept not in self._found:
            exact = self._exact = self._exact or _scores(
                exact_recipe(self._recipe), self._bench, "float32", self._advance
            )
            tried = replace(self._recipe, plan=plan)
            ours = _scores(tried, self._bench, "the bundle", self._advance)
            self._found[kept] = compare(self._benchmark, exact, ours)
        return self._found[kept]


def exact_recipe(recipe: Recipe) -> Recipe:
    """Give the float32 graphs that a recipe's are compared with."""
    target, precision = find_target("onnx-cpu", "fp32")
    return replace(recipe, target=target, precision=precision, plan=Plan())


def compare(benchmark: Benchmark, exact: Scores, ours: Scores) -> Scoreboard:
    """Lay two submissions' scores on one benchmark beside each other."""
    boxes = sum(_boxes(picture.labels) for picture in benchmark.pictures)
    items = {
        "Perception Accuracy": len(benchmark.questions),
        "Region mAP": sum(_boxes(region.labels) for region in benchmark.regions),
        "Distortion mAP": boxes,
        "Description mAP": boxes,
        "Key Distortion Accuracy": exact.keys.total,
        "Image Quality Accuracy": exact.levels.total,
    }
    before, after = exact.to_dict(), ours.to_dict()
    return Scoreboard(
        len(benchmark.pictures),
        {
            name: Row(before[name], after[name], max(FALL, ITEMS / max(count, 1)))
            for name, count in items.items()
        },
    )


def _boxes(labels: Sequence[Label]) -> int:
    return sum(label.box is not None for label in labels)


def _scores(recipe: Recipe, bench: Path, name: str, advance: Advance) -> Scores:
    def report(stage: str, done: int, total: int) -> None:
        advance(f"{stage} the benchmark, {name}", done, total)

    with TemporaryDirectory() as place:
        draft, output = Path(place) / "draft", Path(place) / "output"
        draft.mkdir()
        write_draft(recipe, draft, advance)
        assessor = Assessor(draft)
        return evaluate(assessor, bench, output, mos=None, limit=None, advance=report).scores
