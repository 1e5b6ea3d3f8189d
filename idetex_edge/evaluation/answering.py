"""Put a benchmark's pictures, regions and questions to a model, each picture encoded once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from idetex_edge.assessor import Assessor
from idetex_edge.evaluation.benchmark import Benchmark, Picture, Question, Region
from idetex_edge.evaluation.opinions import Opinion
from idetex_edge.evaluation.submission import (
    Submission,
    description_record,
    detection_record,
    question_record,
    region_record,
)
from idetex_edge.journal import Journal

Advance: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


def answer_benchmark(
    assessor: Assessor, benchmark: Benchmark, journal: Journal, advance: Advance
) -> Submission:
    """Answer everything that the journal does not hold yet; raises as the Assessor does."""
    regions: dict[str, list[Region]] = defaultdict(list)
    questions: dict[str, list[Question]] = defaultdict(list)
    for region in benchmark.regions:
        regions[region.image].append(region)
    for question in benchmark.questions:
        questions[question.image].append(question)
    for done, picture in enumerate(benchmark.pictures):
        advance("answering", done, len(benchmark.pictures))
        name = picture.image
        if name not in journal:
            journal.add(name, _answers(assessor, picture, regions[name], questions[name]))
    advance("answering", len(benchmark.pictures), len(benchmark.pictures))
    answers = [journal[picture.image] for picture in benchmark.pictures]
    return Submission(
        perception=_in_order(benchmark.questions, answers, "questions"),
        grounding=[
            *_in_order(benchmark.regions, answers, "regions"),
            *(answer["detection"] for answer in answers),
        ],
        description=[answer["description"] for answer in answers],
    )


def score_photographs(
    assessor: Assessor, opinions: Sequence[Opinion], journal: Journal, advance: Advance
) -> list[float]:
    """The score 0..100 of each photograph that people scored, in their order."""
    for done, opinion in enumerate(opinions):
        advance("scoring", done, len(opinions))
        if opinion.file not in journal:
            journal.add(opinion.file, {"score": assessor.score(opinion.path).score})
    advance("scoring", len(opinions), len(opinions))
    return [journal[opinion.file]["score"] for opinion in opinions]


def _answers(
    assessor: Assessor,
    picture: Picture,
    regions: Sequence[Region],
    questions: Sequence[Question],
) -> dict[str, Any]:
    """All records about one picture."""
    seen = assessor.encode(picture.path)
    size = seen.image.size
    asked = [(question.question, question.candidates) for question in questions]
    return {
        "detection": detection_record(picture, size, assessor.ground(seen)),
        "regions": [
            region_record(region, size, assessor.ground(seen, region_1000=region.box))
            for region in regions
        ],
        "questions": [
            question_record(question, answer)
            for question, answer in zip(questions, assessor.ask_all(seen, asked), strict=True)
        ],
        "description": description_record(picture, size, assessor.describe(seen)),
    }


def _in_order(
    asked: Iterable[Region | Question], answers: Iterable[dict[str, Any]], kind: str
) -> list[dict[str, Any]]:
    """The records of one kind in the order of the benchmark's file."""
    by_id = {record["id"]: record for answer in answers for record in answer[kind]}
    return [by_id[question.id] for question in asked]
