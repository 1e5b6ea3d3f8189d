"""The whole evaluation of a bundle: answer a benchmark, write the submission, score it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from idetex_edge.assessor import Assessor
from idetex_edge.bundle import MANIFEST, file_facts
from idetex_edge.evaluation.answering import Advance, answer_benchmark, score_photographs
from idetex_edge.evaluation.benchmark import METADATA, QUESTIONS, REGIONS, open_benchmark
from idetex_edge.evaluation.correlation import Correlation, correlate, correlate_by_prefix
from idetex_edge.evaluation.files import write_json
from idetex_edge.evaluation.opinions import read_opinions
from idetex_edge.evaluation.scoring import Scores, score
from idetex_edge.journal import Journal

SCORES: Final = "scores.json"
"""The file of all figures, beside the challenge's three."""

_ANSWERED: Final = "answered.jsonl"
_SCORED: Final = "scored.jsonl"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a bundle's scores go with people's opinions.

    overall: None where it is undefined. series: by what file names have in front of the first `_`.
    """

    overall: Correlation | None
    series: Mapping[str, Correlation]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "SRCC": self.overall and self.overall.srcc,
            "PLCC": self.overall and self.overall.plcc,
            "SRCC by prefix": {name: c.srcc for name, c in self.series.items()},
            "PLCC by prefix": {name: c.plcc for name, c in self.series.items()},
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of one bundle on one engine; agreement only where people's opinions are given."""

    model: str
    engine: str
    pictures: int
    scores: Scores
    agreement: Agreement | None

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, the challenge's keys first."""
        return {
            **self.scores.to_dict(),
            **(self.agreement.to_dict() if self.agreement else {}),
            "Model": self.model,
            "Engine": self.engine,
            "Pictures": self.pictures,
        }


def evaluate(
    assessor: Assessor,
    bench: Path,
    output: Path,
    *,
    mos: Path | None,
    limit: int | None,
    advance: Advance,
) -> Evaluation:
    """Evaluate on the benchmark in `bench` and write four files to `output`.

    mos: a table of photographs that people scored (see `read_opinions`). limit: how many of the
    benchmark's pictures to take, the first. A run that was stopped goes on where it was. Raises
    RequestError when the benchmark or table is no good, OutputError when `output` cannot be
    written or holds the beginning of another evaluation, ImageError when a picture is no good.
    """
    benchmark = open_benchmark(bench, limit)
    opinions = read_opinions(mos) if mos else []
    model = {
        "bundle": file_facts(assessor.bundle.path / MANIFEST).sha256,
        "engine": assessor.engine,
    }
    hashes = {name: file_facts(bench / name).sha256 for name in (METADATA, REGIONS, QUESTIONS)}
    with Journal(output / _ANSWERED, model | hashes) as journal:
        submission = answer_benchmark(assessor, benchmark, journal, advance)
    agreement = None
    if mos:
        with Journal(output / _SCORED, model | {"table": file_facts(mos).sha256}) as journal:
            given = score_photographs(assessor, opinions, journal, advance)
        people = [opinion.mos for opinion in opinions]
        files = [opinion.file for opinion in opinions]
        agreement = Agreement(correlate(given, people), correlate_by_prefix(files, given, people))
    found = Evaluation(
        model=assessor.model,
        engine=assessor.engine,
        pictures=len(benchmark.pictures),
        scores=score(benchmark, submission),
        agreement=agreement,
    )
    submission.write(output)
    write_json(output / SCORES, found.to_dict())
    for name in (_ANSWERED, _SCORED):
        (output / name).unlink(missing_ok=True)
    return found
