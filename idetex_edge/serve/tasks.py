"""What workers do with a picture for each endpoint, down to plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from idetex_edge.assessor import Assessor
from idetex_edge.describing import read_description
from idetex_edge.serve.waiting import Tell
from idetex_edge.serve.work import Task

Json: TypeAlias = dict[str, Any]


def assess(picture: bytes) -> Task[Json]:
    """Everything about a picture."""
    return lambda assessor: assessor.assess(picture).to_dict()


def score(picture: bytes) -> Task[Json]:
    """A picture's score."""
    return lambda assessor: assessor.score(picture).to_dict()


def ground(picture: bytes, region: Sequence[int] | None, kind: str | None) -> Task[Json]:
    """Distortions in a picture, a region of it, or of one type."""

    def task(assessor: Assessor) -> Json:
        seen = assessor.encode(picture)
        found = assessor.ground(seen, region) if kind is None else assessor.locate(seen, kind)
        width, height = seen.image.size
        return {
            "width": width,
            "height": height,
            "distortions": [distortion.to_dict() for distortion in found],
        }

    return task


def ask(picture: bytes, question: str, choices: Sequence[str]) -> Task[Json]:
    """A choice among answers."""
    return lambda assessor: assessor.ask(picture, question, choices).to_dict()


def describe(picture: bytes, kind: str | None, tell: Tell) -> Task[Json]:
    """A description, or what one type of distortion does, each piece told as it is written."""

    def task(assessor: Assessor) -> Json:
        seen = assessor.encode(picture)
        text = ""
        for piece in assessor.describe(seen, kind, stream=True):
            tell(piece)
            text += piece
        return read_description(text, *seen.image.size).to_dict()

    return task
