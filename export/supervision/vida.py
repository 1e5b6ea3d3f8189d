"""A user's own ViDA-UGC files as supervision.

The training set of ViDA-UGC (DYEvaLab/ViDA-MIPI-code at 9f6dcde, README and `train/src`) is a
folder with `images/`, `train_metadata.json` (a record a picture, as in ViDA-UGC-Bench) and
LLaVA-style conversations (`combined.json`, somewhere below it). Either file is enough.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, Final

from export.distortions.compose import Truth
from export.supervision.example import Example
from export.supervision.examples import examples_about, score_example
from export.supervision.labelled import Labelled
from export.supervision.mixture import EVERYTHING
from export.supervision.truths import area_of
from idetex_edge.errors import ExportError
from idetex_edge.vocabulary import (
    BOX_END,
    BOX_SCALE,
    BOX_START,
    DISTORTIONS,
    LEVELS,
    SEVERITIES,
)

METADATA: Final = "train_metadata.json"
CONVERSATIONS: Final = "combined.json"
IMAGES: Final = "images"

_PLACEHOLDER: Final = re.compile(r"\s*(?:<image>|<\|vision_start\|>.*?<\|vision_end\|>)\s*")
_CHOICE: Final = re.compile(
    r"(?P<question>.+?)\n(?P<options>A\. .+?)(?:\nAnswer with [^\n]*)?", re.DOTALL
)
_COORDINATES: Final = "Please provide the bounding box coordinates of"
_MARKED_BOX: Final = rf"{re.escape(BOX_START)}.+{re.escape(BOX_END)}"
_LETTER: Final = re.compile(r"([A-Z])\b.*", re.DOTALL)
_LEVEL: Final = re.compile(rf"The quality of the image is ({'|'.join(LEVELS)})\.?")


@dataclass(frozen=True, slots=True)
class _Form:
    """How one task is worded: what its question matches, and how its answer is taken."""

    task: str
    question: re.Pattern[str]
    example: Callable[[Mapping[str, str], str], Example | None]


def _as_said(task: str) -> Callable[[Mapping[str, str], str], Example | None]:
    return lambda fields, answer: Example(task, answer, fields)


def _letter(fields: Mapping[str, str], answer: str) -> Example | None:
    match = _LETTER.fullmatch(answer)
    return Example("choice", match[1], fields) if match else None


def _level(fields: Mapping[str, str], answer: str) -> Example | None:
    match = _LEVEL.fullmatch(answer)
    return score_example(1.0 + LEVELS.index(match[1])) if match else None


_FORMS: Final = (
    _Form(
        "grounding",
        re.compile(
            r"Please provide the bounding box coordinates of all distortions in the image\."
        ),
        _as_said("grounding"),
    ),
    _Form(
        "region",
        re.compile(
            r"What distortion affects this region (?P<region><\|box_start\|>.+<\|box_end\|>)\?"
        ),
        _as_said("region"),
    ),
    _Form(
        "locate",
        re.compile(
            rf"{_COORDINATES} (?:the |all )?"
            rf"(?P<distortion>{'|'.join(DISTORTIONS)})(?: distortions?)? in the image\.",
            re.IGNORECASE,
        ),
        _as_said("locate"),
    ),
    _Form("choice", _CHOICE, _letter),
    _Form(
        "description",
        re.compile(r"Please evaluate the image quality in detail and provide your reasons\."),
        _as_said("description"),
    ),
    _Form("score", re.compile(r"How would you rate the quality of (?:the|this) image\?"), _level),
    _Form("question", re.compile(r"(?P<question>[^\n]+\?)"), _as_said("question")),
)


@dataclass(slots=True)
class Vida:
    """What was read: pictures with their examples, and how much was passed over and why."""

    pictures: list[Labelled]
    passed_over: dict[str, int] = field(default_factory=dict[str, int])


def read_vida(folder: Path, seed: int = 0) -> Vida:
    """Read a ViDA-UGC training folder (see this module's docstring).

    Questions are drawn from the metadata's boxes as for our own pictures, by `seed`, and the boxes
    are kept as truths of their picture, unless one of its distortions is none of the ten or has no
    box; conversations are taken as they stand, where their wording is one of those that our models
    are asked in. Raises ExportError when neither file is there or one cannot be read.
    """
    metadata = folder / METADATA
    talks = sorted(folder.rglob(CONVERSATIONS))
    if not metadata.is_file() and not talks:
        raise ExportError(
            f"{folder} has neither {METADATA} nor {CONVERSATIONS}; give ViDA's folder"
        )
    examples: dict[str, list[Example]] = defaultdict(list)
    truths: dict[str, tuple[Truth, ...]] = {}
    passed_over: dict[str, int] = defaultdict(int)
    random = Random(seed)
    for record in _records(metadata) if metadata.is_file() else []:
        image = _image_of(record, metadata)
        known, whole, level = _from_metadata(record, metadata)
        examples[image] += examples_about(known, level, None, random, EVERYTHING)
        if whole:
            truths[image] = known
    for path in talks:
        for record in _records(path):
            image = _image_of(record, path)
            for question, answer in _turns(record, path):
                example = _recognise(question, answer)
                if example is None:
                    passed_over["worded in no way that our models are asked"] += 1
                else:
                    examples[image].append(example)
    pictures: list[Labelled] = []
    for image, found in examples.items():
        path = folder / IMAGES / image
        if path.is_file():
            pictures.append(Labelled(path, tuple(found), truths.get(image)))
        else:
            passed_over["about a picture that is not there"] += len(found)
    if not pictures:
        raise ExportError(f"none of the pictures that {folder} speaks of is in {folder / IMAGES}")
    return Vida(pictures, dict(passed_over))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read {path}: {error}") from None
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise ExportError(f"{path} is not a list of records")
    return data


def _image_of(record: Mapping[str, Any], path: Path) -> str:
    image = record.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if not isinstance(image, str):
        raise ExportError(f"a record of {path} names no picture: {str(record)[:80]}")
    return PurePosixPath(image).name


def _from_metadata(
    record: Mapping[str, Any], path: Path
) -> tuple[tuple[Truth, ...], bool, float | None]:
    """A picture's distortions, whether these are all that it is said to have, and its score."""
    try:
        labels = record["distortions"]
        truths = tuple(truth for label in labels if (truth := _truth(label)))
        level = str(record["level"]).lower() if "level" in record else None
        mos = 1.0 + LEVELS.index(level) if level else None
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"cannot use a record of {path} ({error}): {str(record)[:80]}") from None
    return truths, len(truths) == len(labels), mos


def _truth(label: Mapping[str, Any]) -> Truth | None:
    """A labelled distortion; None where it is none of the ten or has no place."""
    names = {name.lower(): name for name in DISTORTIONS}
    kind = names.get(str(label["distortion"]).lower().replace("_", " "))
    if kind is None or not label.get("coordinates"):
        return None
    severity = str(label.get("severity", "moderate")).lower().replace("slight", "minor")
    x1, y1, x2, y2 = (min(BOX_SCALE, max(0, round(edge))) for edge in label["coordinates"])
    box = (x1, y1, x2, y2)
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r}")
    area = area_of(box) / BOX_SCALE**2
    return Truth(kind, severity, box, area, "as found") if area else None


def _turns(record: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """(question, answer) pairs of a conversation, the picture's placeholder taken out."""
    said: Sequence[Mapping[str, str]] = record.get("conversations") or ()
    try:
        texts = [(turn["from"], turn["value"]) for turn in said]
    except (KeyError, TypeError):
        raise ExportError(f"cannot read a conversation of {path}: {str(record)[:80]}") from None
    pairs = zip(texts[::2], texts[1::2], strict=False)
    return [
        (_PLACEHOLDER.sub("", question), answer.strip())
        for (asker, question), (answerer, answer) in pairs
        if (asker, answerer) == ("human", "gpt")
    ]


def _recognise(question: str, answer: str) -> Example | None:
    for form in _FORMS:
        if match := form.question.fullmatch(question.strip()):
            fields = {
                k: v.lower() if k == "distortion" else v for k, v in match.groupdict().items()
            }
            return form.example(fields, answer)
    return None
