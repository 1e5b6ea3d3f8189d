"""The six scores of the ViDA-UGC challenge and their sum, equal to its own scorer's to the digit.

The rules are those of `scoring.py` in DYEvaLab/ViDA-MIPI-code at 9f6dcde.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from idetex_edge.boxes import overlap
from idetex_edge.errors import RequestError
from idetex_edge.evaluation.average_precision import Mark, average_precisions
from idetex_edge.evaluation.benchmark import (
    Benchmark,
    Label,
    Picture,
    Question,
    Record,
    Region,
)
from idetex_edge.evaluation.submission import REGION_TYPE, Submission
from idetex_edge.vocabulary import NO_DISTORTION

_KEY_HIT: Final = 0.5
"""A key distortion's box must overlap a labelled one's by more than this."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of how many were right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """0..1; 0 where there were none."""
        return self.right / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """What a submission is worth.

    concerns: multiple-choice questions answered rightly, by concern. regions, distortions,
    descriptions: average precision 0..1 by class. keys: of the key distortions predicted, those
    labelled as mattering most. levels: quality levels told rightly.
    """

    concerns: Mapping[str, Tally]
    regions: Mapping[str, float]
    distortions: Mapping[str, float]
    descriptions: Mapping[str, float]
    keys: Tally
    levels: Tally

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form: the challenge's own keys, each 0..1 and their sum, then details."""
        tallies = self.concerns.values()
        perception = Tally(sum(t.right for t in tallies), sum(t.total for t in tallies)).share
        region, distortion, description = (
            float(np.mean(list(classes.values()))) if classes else 0.0
            for classes in (self.regions, self.distortions, self.descriptions)
        )
        key, level = self.keys.share, self.levels.share
        return {
            # Not sum(): since Python 3.12 it rounds otherwise than plain additions.
            "Final Score": perception + region + distortion + description + key + level,
            "Perception Accuracy": perception,
            "Region mAP": region,
            "Distortion mAP": distortion,
            "Description mAP": description,
            "Key Distortion Accuracy": key,
            "Image Quality Accuracy": level,
            "Perception Accuracy by concern": {c: t.share for c, t in self.concerns.items()},
            "Region AP by class": dict(self.regions),
            "Distortion AP by class": dict(self.distortions),
            "Description AP by class": dict(self.descriptions),
        }


def score(benchmark: Benchmark, submission: Submission) -> Scores:
    """Score a submission; raises RequestError when a question has no answer that can be read."""
    labelled = labelled_marks(benchmark.pictures)
    in_regions = [r for r in submission.grounding if r["question_type"] == REGION_TYPE]
    described = _predicted(submission.description, "all_distortions")
    return Scores(
        concerns=_concerns(benchmark.questions, submission.perception),
        regions=average_precisions(
            _present(labelled_marks(benchmark.regions)),
            _present(_predicted(in_regions, "distortions")),
        ),
        # Answers about regions count as well: so does the challenge.
        distortions=average_precisions(labelled, _predicted(submission.grounding, "distortions")),
        descriptions=average_precisions(_plain(labelled), _plain(described)),
        keys=_keys(benchmark.pictures, submission.description),
        levels=_levels(benchmark.pictures, submission.description),
    )


def labelled_marks(items: Iterable[Picture | Region]) -> list[Mark]:
    """The boxes that pictures or regions are labelled with."""
    return [
        Mark(item.image, label.name, label.box)
        for item in items
        for label in item.labels
        if label.box is not None
    ]


def _predicted(records: Iterable[Record], field: str) -> list[Mark]:
    return [
        Mark(record["image"], found["distortion"], tuple(found["coordinates"]))
        for record in records
        for found in record[field]
    ]


def _present(marks: Iterable[Mark]) -> list[Mark]:
    return [mark for mark in marks if mark.name != NO_DISTORTION]


def _plain(marks: Iterable[Mark]) -> list[Mark]:
    return [replace(mark, name=_plain_name(mark.name)) for mark in marks]


def _plain_name(name: str) -> str:
    return name.lower().replace("_", " ").strip()


def _concerns(questions: Sequence[Question], records: Iterable[Record]) -> dict[str, Tally]:
    answers = {record["id"]: record for record in records}
    tallies: dict[str, Tally] = {}
    for question in questions:
        tally = tallies.get(question.concern, Tally(0, 0))
        right = _chosen(question, answers.get(question.id)) == question.answer
        tallies[question.concern] = Tally(tally.right + right, tally.total + 1)
    return tallies


def _chosen(question: Question, record: Record | None) -> str:
    """The candidate that an answer's first letter stands for."""
    letter = record["pred_ans"].strip()[:1] if record else ""
    candidates: Sequence[str] = record["candidates"] if record else ()
    index = ord(letter) - ord("A") if letter else -1
    if not 0 <= index < len(candidates):
        raise RequestError(
            f"question {question.id} is answered by {letter!r}, which is none of its "
            f"{len(candidates)} candidates' letters; answer every question, first with a letter"
        )
    return candidates[index]


def _keys(pictures: Sequence[Picture], records: Iterable[Record]) -> Tally:
    labels = {picture.image: picture.labels for picture in pictures if picture.labels}
    right = total = 0
    for record in records:
        if record["image"] not in labels:
            continue
        keys = _most_significant(labels[record["image"]])
        for found in record["key_distortions"]:
            total += 1
            right += any(
                _plain_name(found["distortion"]) == _plain_name(key.name)
                and key.box is not None
                and overlap(tuple(found["coordinates"]), key.box) > _KEY_HIT
                for key in keys
            )
    return Tally(right, total)


def _most_significant(labels: Sequence[Label]) -> list[Label]:
    most = max(label.significance for label in labels)
    return [label for label in labels if label.significance == most]


def _levels(pictures: Sequence[Picture], records: Iterable[Record]) -> Tally:
    levels = {picture.image: picture.level for picture in pictures}
    told = [r["image_quality"] == levels[r["image"]] for r in records if r["image"] in levels]
    return Tally(sum(told), len(told))
