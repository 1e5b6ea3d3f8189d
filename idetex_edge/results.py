"""What the tasks give back: distortions, scores, answers, descriptions, assessments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from PIL import Image

from idetex_edge.errors import EngineError, RequestError
from idetex_edge.image import ImageSource, load_image
from idetex_edge.overlay import draw_overlay
from idetex_edge.vocabulary import BOX_SCALE, LEVELS

Box: TypeAlias = tuple[int, int, int, int]
"""(x1, y1, x2, y2): top-left corner inside the box, bottom-right corner just outside it."""


def scale_box(box_1000: Box, width: int, height: int) -> Box:
    """Turn a 0..1000 box into pixels of a picture `width` x `height`.

    The result holds 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height, whatever came in: corners
    are put in order, coordinates outside 0..1000 are clamped, empty boxes grow to one pixel.
    """
    left, right = _scale_span(box_1000[0], box_1000[2], width)
    top, bottom = _scale_span(box_1000[1], box_1000[3], height)
    return left, top, right, bottom


def _scale_span(first: int, second: int, length: int) -> tuple[int, int]:
    start, end = (
        (min(max(value, 0), BOX_SCALE) * length + BOX_SCALE // 2) // BOX_SCALE
        for value in sorted((first, second))
    )
    start = min(start, length - 1)
    return start, max(end, start + 1)


@dataclass(frozen=True, slots=True)
class Distortion:
    """One distortion and where it is.

    type: one of `vocabulary.DISTORTIONS`. severity: one of `vocabulary.SEVERITIES`.
    box_1000: (x1, y1, x2, y2), integers 0..1000 of the picture's width and height, as the model
        wrote them. box: the same in pixels of the picture, None until the picture is known.
    confidence: 0..1, the model's probability for what it wrote.
    """

    type: str
    severity: str
    box_1000: Box
    box: Box | None = None
    confidence: float = 1.0

    def placed(self, width: int, height: int) -> Distortion:
        """Give this distortion its box in pixels of a `width` x `height` picture.

        Corners that the model wrote the wrong way round are put in order in both boxes.
        """
        x1, y1, x2, y2 = self.box_1000
        ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        return replace(self, box_1000=ordered, box=scale_box(ordered, width, height))

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form; boxes are lists, `box` is null while the picture is unknown."""
        return {
            "type": self.type,
            "severity": self.severity,
            "box": None if self.box is None else list(self.box),
            "box_1000": list(self.box_1000),
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True)
class Score:
    """How good a picture is.

    score: 0..100. mos: mean opinion score, 1..5. level: the level nearest to `mos`.
    level_probabilities: for each of `vocabulary.LEVELS`; they sum to 1.
    """

    score: float
    mos: float
    level: str
    level_probabilities: Mapping[str, float]

    @classmethod
    def from_probabilities(cls, probabilities: Sequence[float]) -> Score:
        """Take the expectation over the five levels, worst first; weights are normalised.

        Raises EngineError when these are no probabilities, as when an engine overflowed.
        """
        weights = [float(value) for value in probabilities]
        total = sum(weights)
        if len(weights) != len(LEVELS) or not (min(weights) >= 0 and 0 < total < math.inf):
            raise EngineError(
                f"the model gave no probabilities for the levels but {weights}; "
                "try another engine, or check the bundle"
            )
        shares = [weight / total for weight in weights]
        mos = min(max(sum(share * (i + 1) for i, share in enumerate(shares)), 1.0), 5.0)
        level = LEVELS[math.floor(mos + 0.5) - 1]
        return cls((mos - 1) / 4 * 100, mos, level, dict(zip(LEVELS, shares, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "score": self.score,
            "mos": self.mos,
            "level": self.level,
            "level_probabilities": dict(self.level_probabilities),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a multiple-choice question.

    choice: the option chosen, as it was given. index: its place among the options, from 0.
    probabilities: one for each option, in their order; they sum to 1.
    """

    choice: str
    index: int
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "choice": self.choice,
            "index": self.index,
            "probabilities": list(self.probabilities),
        }


@dataclass(frozen=True, slots=True)
class Description:
    """A picture's quality in words.

    text: what the model wrote, markers and all. distortions: every one it mentions.
    key_distortions: those that it says matter most. level: its verdict, None if it gave none.
    """

    text: str
    distortions: tuple[Distortion, ...]
    key_distortions: tuple[Distortion, ...]
    level: str | None

    def placed(self, width: int, height: int) -> Description:
        """Give all its distortions boxes in pixels of a `width` x `height` picture."""
        return replace(
            self,
            distortions=tuple(d.placed(width, height) for d in self.distortions),
            key_distortions=tuple(d.placed(width, height) for d in self.key_distortions),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "text": self.text,
            "distortions": [distortion.to_dict() for distortion in self.distortions],
            "key_distortions": [distortion.to_dict() for distortion in self.key_distortions],
            "level": self.level,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything found out about one picture.

    score, mos, level, level_probabilities: see `Score`. distortions, key_distortions: with boxes
    in pixels of the picture. description: in words, without markers. timings: milliseconds for
    each step. model: its name. width, height: of the picture, pixels. path: where it came from, if
    from a file. image: the picture itself, for `overlay`; not part of the JSON form.
    """

    score: float
    mos: float
    level: str
    level_probabilities: Mapping[str, float]
    distortions: tuple[Distortion, ...]
    key_distortions: tuple[Distortion, ...]
    description: str
    timings: Mapping[str, float]
    model: str
    width: int
    height: int
    path: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "path": self.path,
            "width": self.width,
            "height": self.height,
            "score": self.score,
            "mos": self.mos,
            "level": self.level,
            "level_probabilities": dict(self.level_probabilities),
            "distortions": [distortion.to_dict() for distortion in self.distortions],
            "key_distortions": [distortion.to_dict() for distortion in self.key_distortions],
            "description": self.description,
            "timings": dict(self.timings),
            "model": self.model,
        }

    def to_json(self, indent: int | None = None) -> str:
        """Give the JSON form as text, on one line unless an indent is given."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    def overlay(self, image: ImageSource | None = None) -> Image.Image:
        """Draw the distortions and the score onto the assessed picture, or onto `image`.

        Raises RequestError when no picture was kept and none is given, ImageError when the one
        given cannot be read.
        """
        picture = self.image if image is None else load_image(image)
        if picture is None:
            raise RequestError("this assessment holds no picture; pass one to overlay(image)")
        return draw_overlay(picture, self.distortions, score=self.score, level=self.level)
