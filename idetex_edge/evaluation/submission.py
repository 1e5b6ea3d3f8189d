"""The three files that the challenge takes, in its formats and order.

`perception.json`, `grounding.json` (all regions first, then all pictures) and `description.json`,
as in the example submission of DYEvaLab/ViDA-MIPI-code at 9f6dcde.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from idetex_edge.evaluation.benchmark import Picture, Question, Region
from idetex_edge.evaluation.files import write_json
from idetex_edge.results import Answer, Description, Distortion
from idetex_edge.vocabulary import NO_DISTORTION, OBJECT_REF_END, OBJECT_REF_START, box_text

PERCEPTION: Final = "perception.json"
GROUNDING: Final = "grounding.json"
DESCRIPTION: Final = "description.json"

REGION_TYPE: Final = "region-perception"
DETECTION_TYPE: Final = "distortion-detection"

_DETECTION_QUESTION: Final = (
    "Please provide the bounding box coordinates of all distortions in the image."
)
_SEVERITIES: Final = {"minor": "Slight", "moderate": "Moderate", "severe": "Severe"}
_UNKNOWN: Final = "unknown"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """The records of the three files."""

    perception: Sequence[Record]
    grounding: Sequence[Record]
    description: Sequence[Record]

    def write(self, folder: Path) -> None:
        """Write the files, each put in place when whole; raises OutputError when it cannot."""
        write_json(folder / PERCEPTION, self.perception)
        write_json(folder / GROUNDING, self.grounding)
        write_json(folder / DESCRIPTION, self.description)


def question_record(question: Question, answer: Answer) -> Record:
    """A multiple-choice question answered, as in `perception.json`."""
    return {
        "id": question.id,
        "concern": question.concern,
        "question": question.question,
        "image": question.written_image,
        "candidates": list(question.candidates),
        "pred_ans": f"{chr(ord('A') + answer.index)}.",
    }


def region_record(region: Region, size: tuple[int, int], found: Sequence[Distortion]) -> Record:
    """What is wrong in a region, as in `grounding.json`; `size` is the picture's, in pixels."""
    return {
        "id": region.id,
        "image": region.image,
        "width": size[0],
        "height": size[1],
        "question": region.question,
        "question_type": REGION_TYPE,
        "pred_ans": grounding_text(found, " "),
        "distortions": [_grounded(distortion) for distortion in found],
    }


def detection_record(
    picture: Picture, size: tuple[int, int], found: Sequence[Distortion]
) -> Record:
    """All that is wrong in a picture, as in `grounding.json`."""
    return {
        "id": picture.id,
        "image": picture.image,
        "width": size[0],
        "height": size[1],
        "question_type": DETECTION_TYPE,
        "question": _DETECTION_QUESTION,
        "pred_ans": grounding_text(found, "\n"),
        "distortions": [_grounded(distortion) for distortion in found],
    }


def description_record(picture: Picture, size: tuple[int, int], said: Description) -> Record:
    """A picture described, as in `description.json`; without a verdict its level is "unknown"."""
    return {
        "id": picture.id,
        "image": picture.image,
        "width": size[0],
        "height": size[1],
        "pred_ans": said.text,
        "all_distortions": [_described(distortion) for distortion in said.distortions],
        "key_distortions": [_described(distortion) for distortion in said.key_distortions],
        "image_quality": said.level or _UNKNOWN,
    }


def grounding_text(found: Sequence[Distortion], separator: str) -> str:
    """Write distortions as ViDA-UGC's answers do, a line for each run of one type.

    `separator` stands between a type and its boxes: a line break for a picture, a space for a
    region.
    """
    lines: list[str] = []
    for kind, of_kind in groupby(found, key=lambda distortion: distortion.type):
        parts: list[str] = []
        for severity, alike in groupby(of_kind, key=lambda distortion: distortion.severity):
            label = f"{severity} {kind.lower()}".capitalize()
            boxes = "".join(box_text(distortion.box_1000) for distortion in alike)
            parts.append(f"{OBJECT_REF_START}{label}{OBJECT_REF_END}{boxes}")
        lines.append(f"{kind}:{separator}{''.join(parts)}")
    return "\n".join(lines) or NO_DISTORTION


def _grounded(distortion: Distortion) -> Mapping[str, Any]:
    return {
        "distortion": distortion.type,
        "severity": _SEVERITIES[distortion.severity],
        "coordinates": list(distortion.box_1000),
    }


def _described(distortion: Distortion) -> Mapping[str, Any]:
    return {
        "distortion": distortion.type.lower(),
        "severity": distortion.severity,
        "coordinates": list(distortion.box_1000),
    }
