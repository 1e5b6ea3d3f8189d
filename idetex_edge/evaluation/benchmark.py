"""A benchmark in the form of ViDA-UGC-Bench, read from its folder.

The folder holds `images/` and three lists of JSON objects, all boxes integers 0..1000:

- `bench_metadata.json`: `image`, `level`, `distortions` (each `distortion`, `coordinates`
  [x1, y1, x2, y2], `significance_score`);
- `reg-p_bench.json`: `id`, `image`, `question` with the region between box markers, `distortions`;
- `mcq.json`: `id`, `image`, `concern`, `question`, `candidates`, `correct_ans`.

Other fields are ignored. The names are those that the challenge's own scorer and runners use
(DYEvaLab/ViDA-MIPI-code at 9f6dcde).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from idetex_edge.errors import RequestError
from idetex_edge.results import Box

METADATA: Final = "bench_metadata.json"
REGIONS: Final = "reg-p_bench.json"
QUESTIONS: Final = "mcq.json"
IMAGES: Final = "images"

_REGION: Final = re.compile(r"\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Label:
    """One labelled distortion: its name as written, where it is if told, and its weight."""

    name: str
    box: Box | None
    significance: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: its id and name, where it lies, what is wrong with it, and its level."""

    id: int | str
    image: str
    path: Path
    labels: tuple[Label, ...]
    level: str


@dataclass(frozen=True, slots=True)
class Region:
    """The question what is wrong inside a 0..1000 box, with the right answer."""

    id: int | str
    image: str
    question: str
    box: Box
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question; `answer` is the right one of `candidates`.

    ViDA-UGC-Bench puts folders in front of some pictures' names here: `written_image`.
    """

    id: int | str
    image: str
    written_image: str
    concern: str
    question: str
    candidates: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All of it, each list in its file's order; `image` names a picture everywhere."""

    folder: Path
    pictures: tuple[Picture, ...]
    regions: tuple[Region, ...]
    questions: tuple[Question, ...]


def open_benchmark(folder: Path, limit: int | None = None) -> Benchmark:
    """Read a benchmark; with `limit`, its first pictures only and what is asked about them.

    Raises RequestError when a file or picture is missing or a record lacks what it must have.
    """
    pictures = [_picture(record, where, folder) for record, where in _records(folder / METADATA)]
    _require_unique([picture.image for picture in pictures], "pictures", METADATA)
    names = {picture.image for picture in pictures}
    regions = [_region(record, where, names) for record, where in _records(folder / REGIONS)]
    _require_unique([region.id for region in regions], "ids", REGIONS)
    questions = [_question(record, where, names) for record, where in _records(folder / QUESTIONS)]
    _require_unique([question.id for question in questions], "ids", QUESTIONS)
    pictures = pictures[:limit]
    names = {picture.image for picture in pictures}
    return Benchmark(
        folder,
        tuple(pictures),
        tuple(region for region in regions if region.image in names),
        tuple(question for question in questions if question.image in names),
    )


def _records(path: Path) -> list[tuple[Record, str]]:
    """The file's records, each with what to call it in a message; its index is the default id."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RequestError(
            f"{path.parent} is no benchmark: it has no {path.name} that can be read"
        ) from None
    except ValueError as error:
        raise RequestError(f"{path} is not JSON: {error}; get it again") from None
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise RequestError(f"{path} is not a list of JSON objects; see ViDA-UGC-Bench's form")
    return [({"id": i} | record, f"{path.name}, record {i},") for i, record in enumerate(data)]


def _text(record: Record, field: str, where: str) -> str:
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where} has no {field}; it must be a text")
    return value


def _image(record: Record, where: str, names: set[str]) -> str:
    """The picture's name as the metadata has it; a question may put folders in front."""
    image = _text(record, "image", where)
    for name in (image, PurePosixPath(image).name):
        if name in names:
            return name
    raise RequestError(f"{where} is about {image}, which {METADATA} does not list")


def _labels(record: Record, where: str) -> tuple[Label, ...]:
    found = record.get("distortions") or []
    if not isinstance(found, list) or not all(isinstance(label, dict) for label in found):
        raise RequestError(f"{where} has distortions that are not a list of JSON objects")
    return tuple(_label(label, where) for label in found)


def _label(label: Record, where: str) -> Label:
    name = _text(label, "distortion", where)
    box = label.get("coordinates")
    significance = label.get("significance_score", 0)
    numbers = [significance, *(box or [])] if box is None or isinstance(box, list) else [None]
    if not all(isinstance(number, int | float) for number in numbers) or len(numbers) not in (1, 5):
        raise RequestError(
            f"{where} places {name!r} at {box!r} with significance_score {significance!r}; "
            "give four numbers and one"
        )
    return Label(name, (box[0], box[1], box[2], box[3]) if box else None, significance)


def _picture(record: Record, where: str, folder: Path) -> Picture:
    image = _text(record, "image", where)
    path = folder / IMAGES / image
    if not path.is_file():
        raise RequestError(f"{where} names {image}, which is not in {path.parent}; copy it there")
    level = _text(record, "level", where)
    return Picture(record["id"], image, path, _labels(record, where), level)


def _region(record: Record, where: str, names: set[str]) -> Region:
    question = _text(record, "question", where)
    match = _REGION.search(question)
    if match is None:
        raise RequestError(f"{where} asks {question!r}, which has no box (x1,y1),(x2,y2)")
    x1, y1, x2, y2 = (int(number) for number in match.groups())
    labels = _labels(record, where)
    image = _image(record, where, names)
    return Region(record["id"], image, question, (x1, y1, x2, y2), labels)


def _question(record: Record, where: str, names: set[str]) -> Question:
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or len(candidates) < 2:
        raise RequestError(f"{where} has no candidates; it must be a list of two or more texts")
    return Question(
        id=record["id"],
        image=_image(record, where, names),
        written_image=record["image"],
        concern=_text(record, "concern", where),
        question=_text(record, "question", where),
        candidates=tuple(str(candidate) for candidate in candidates),
        answer=_text(record, "correct_ans", where),
    )


def _require_unique(values: Sequence[object], what: str, file: str) -> None:
    if len(set(values)) != len(values):
        twice = next(value for i, value in enumerate(values) if value in values[:i])
        raise RequestError(f"{file} has {what} more than once, such as {twice!r}; keep one of each")
