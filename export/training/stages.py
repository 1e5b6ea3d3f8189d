"""What all stages learn from; of two and three, what pictures are asked and how they are seen.

In stage two, *reading*, the language model learns every task from the truth as a tower might put it
(`evidence.told`); no pixel is encoded but for a teacher. In stage three, *language*, the whole
model sees, vision tower included, and learns people's scores beside, and what a user labelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.pool.shards import CELL
from export.recipe import WHOLE, Recipe
from export.supervision import mixture
from export.supervision.example import Example
from export.supervision.examples import examples_for
from export.supervision.labelled import Labelled
from export.supervision.mixture import EVEN, Mixture, without_brief
from export.supervision.wording import FirstWords
from export.training.batches import Batch
from export.training.evidence import told
from export.training.known import known_of
from export.training.packing import TASK_WEIGHTS, Packed, Packer
from export.training.student import Sight, Student
from idetex_edge.prompts import PromptSet

_OPENING_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the two stages: `name` is its files', `pixels` the budget of a step's batch.

    `sees`: whether the features are the tower's, which learns, too.
    `opening`: what fresh weights are asked in the first `_OPENING_SHARE` of the time.
    """

    name: str
    sees: bool
    pixels: int
    rate: float
    mixture: Mixture
    opening: Mixture | None = None


READING: Final = Stage("reading", False, 450_000, 1.5e-3, mixture.READING, opening=mixture.BOXES)
LANGUAGE: Final = Stage("model", True, 480_000, 5e-4, mixture.JOINED)


@dataclass(frozen=True, slots=True)
class Material:
    """What is learnt from and in which words, and what is validated on.

    pool: a folder of spoiled pictures; real: photographs beside them that people scored; labelled:
    a user's own labelled pictures; checks: pools to validate on, by name; scored: photographs to
    validate on, of each of which a score is known.
    """

    tokenizer: Tokenizer
    prompts: PromptSet
    pool: Path
    real: Sequence[Labelled]
    checks: Mapping[str, Path]
    scored: Sequence[Labelled]
    labelled: Sequence[Labelled] = ()


def real_of(material: Material, recipe: Recipe) -> list[Labelled]:
    """The pictures, as they are found, that are learnt from beside the spoiled ones."""
    photographs = material.real if "photographs" in recipe else ()
    return [*photographs, *(material.labelled if "labels" in recipe else ())]


def asked_of(
    batch: Batch, draw: str, mixture: Mixture, recipe: Recipe = WHOLE
) -> list[list[Example]]:
    """What each picture of a batch is asked: by its seed and `draw`, or always the same of it."""
    words = Random if "rephrasing" in recipe else FirstWords
    draw = draw if "redrawing" in recipe else ""
    return [
        examples_for(record, mirrored, words(f"{draw} {record.seed}"), mixture)
        for record, mirrored in zip(batch.records, batch.mirrored, strict=True)
    ]


def pack_cells(packer: Packer, examples: Sequence[Sequence[Example]], pixels: Tensor) -> Packed:
    """Pack what pictures of pixels [B, 3, H, W] are asked."""
    height, width = pixels.shape[-2:]
    return packer.pack(examples, height // CELL, width // CELL)


def tasks_of(stage: Stage, recipe: Recipe, share: float) -> Mixture:
    """How often each task is asked when `share` (0..1) of the stage's time is spent."""
    opening = stage.opening if share < _OPENING_SHARE else None
    tasks = (opening or stage.mixture) if "mixing" in recipe else EVEN
    return tasks if "shortening" in recipe else without_brief(tasks)


def weights_of(recipe: Recipe) -> Mapping[str, float]:
    """What a token of each task's answer weighs."""
    return TASK_WEIGHTS if "mixing" in recipe else dict.fromkeys(TASK_WEIGHTS, 1.0)


def look(
    student: Student,
    stage: Stage,
    batch: Batch,
    generator: torch.Generator,
    doubtful: bool = True,
) -> Sight:
    """The pictures as they are seen, or as they are told."""
    if stage.sees:
        return student.see(batch.pixels)
    evidence = told(known_of(batch), generator, doubtful)
    features = student.testify(evidence)
    return Sight(features, evidence, features)
