"""What clients are told: the bodies of answers, for OpenAPI."""

from __future__ import annotations

from pydantic import BaseModel


class Fault(BaseModel):
    """What went wrong: a word for programs, a line for people."""

    type: str
    message: str


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    error: Fault


class DistortionTold(BaseModel):
    """One distortion: where in the picture's pixels, and in 0..1000 of its sides."""

    type: str
    severity: str
    box: list[int]
    box_1000: list[int]
    confidence: float


class ScoreTold(BaseModel):
    """How good a picture is: score 0..100, mos 1..5."""

    score: float
    mos: float
    level: str
    level_probabilities: dict[str, float]


class AssessmentTold(ScoreTold):
    """Everything about one picture; timings in milliseconds."""

    path: None = None
    width: int
    height: int
    distortions: list[DistortionTold]
    key_distortions: list[DistortionTold]
    description: str
    timings: dict[str, float]
    model: str


class GroundedTold(BaseModel):
    """What is wrong with one picture of so many pixels, and where."""

    width: int
    height: int
    distortions: list[DistortionTold]


class AnswerTold(BaseModel):
    """The choice made, its place from 0, and the probability of each choice."""

    choice: str
    index: int
    probabilities: list[float]


class DescriptionTold(BaseModel):
    """A picture's quality in words, and what of it could be read back."""

    text: str
    distortions: list[DistortionTold]
    key_distortions: list[DistortionTold]
    level: str | None


class Assessed(BaseModel):
    """An assessment for each picture, in their order."""

    model: str
    results: list[AssessmentTold]


class Scored(BaseModel):
    """A score for each picture, in their order."""

    model: str
    results: list[ScoreTold]


class Grounded(BaseModel):
    """What is wrong with each picture, in their order."""

    model: str
    results: list[GroundedTold]


class Answered(BaseModel):
    """An answer for each picture, in their order."""

    model: str
    results: list[AnswerTold]


class Described(BaseModel):
    """A description for each picture, in their order."""

    model: str
    results: list[DescriptionTold]


class Model(BaseModel):
    """A model, as OpenAI's clients expect it, and what it runs on."""

    id: str
    object: str
    created: int
    owned_by: str
    engine: str
    precision: str


class Models(BaseModel):
    """All models: the one that is served."""

    object: str
    data: list[Model]


class State(BaseModel):
    """The server's state in one word."""

    status: str
