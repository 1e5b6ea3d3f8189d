"""Stages two and three: all tasks, from packed questions.

In stage two, *reading*, the language model learns every task from the truth as a tower might put it
(`evidence.told`); no pixel is encoded. In stage three, *language*, the whole model sees,
vision tower included, and learns people's scores beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from export.pool.shards import CELL
from export.recipe import WHOLE, Recipe
from export.supervision import mixture
from export.supervision.example import Example
from export.supervision.examples import examples_for
from export.supervision.labelled import Labelled
from export.supervision.mixture import EVEN, EVERYTHING, Mixture, without_brief
from export.supervision.wording import FirstWords
from export.training.batches import Batch, Batches, normalise
from export.training.course import Course, averaged_weights
from export.training.evidence import evidence_loss, grade_targets, looks_of, told
from export.training.losses import Losses
from export.training.optimiser import Optimiser
from export.training.packing import TASK_WEIGHTS, Packed, Packer
from export.training.real import RealBatches, as_the_model_sees
from export.training.student import Sight, Student
from export.training.teaching import Teacher, lessons
from export.training.team import average_gradients, rank
from idetex_edge.evaluation.correlation import correlate
from idetex_edge.prompts import PromptSet

_WEIGHTS = {
    "loss": 1.0,
    "options": 0.7,
    "levels": 1.0,
    "evidence": 0.15,
    "logits": 0.7,
    "features": 0.5,
}
_REAL_BATCH = 4
_TOWER_SHARE = 0.3
_BYPASS_SHARE = 0.1
_CHECK_BATCHES = 24
_CHECK_PIXELS = 225_000
_CHECK_PEOPLE = 128


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the two stages: `name` is its files', `pixels` the budget of a step's batch.

    `sees`: whether the features are the tower's; it learns itself every `tower_every` steps.
    """

    name: str
    sees: bool
    pixels: int
    rate: float
    mixture: Mixture
    tower_every: int = 1


READING: Final = Stage("reading", False, 450_000, 1.5e-3, mixture.READING)
LANGUAGE: Final = Stage("model", True, 300_000, 5e-4, mixture.EVERYTHING, tower_every=2)


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


def _pack(packer: Packer, examples: Sequence[Sequence[Example]], pixels: Tensor) -> Packed:
    height, width = pixels.shape[-2:]
    return packer.pack(examples, height // CELL, width // CELL)


def mixed(stage: Stage, recipe: Recipe) -> tuple[Mixture, Mapping[str, float]]:
    """How often each task is asked, and what a token of its answer weighs."""
    weighed = "mixing" in recipe
    tasks = stage.mixture if weighed else EVEN
    weights = TASK_WEIGHTS if weighed else dict.fromkeys(TASK_WEIGHTS, 1.0)
    return tasks if "shortening" in recipe else without_brief(tasks), weights


def _look(
    student: Student,
    stage: Stage,
    batch: Batch,
    generator: torch.Generator,
    tower_learns: bool = False,
    doubtful: bool = True,
) -> Sight:
    """The pictures as they are seen, or as they are told."""
    if stage.sees:
        return student.see(batch.pixels, tower_learns)
    targets = grade_targets(batch.coverage, batch.severity)
    evidence = told(targets, looks_of(batch.pixels), generator, doubtful)
    features = student.testify(evidence)
    return Sight(features, evidence, features)


@torch.no_grad()
def check(
    student: Student, stage: Stage, packer: Packer, losses: Losses, pool: Path
) -> dict[str, float]:
    """Teacher-forced figures on a pool: loss, token accuracy, choice accuracy."""
    generator = torch.Generator().manual_seed(11)
    totals = {"loss": 0.0, "token": 0.0, "choice": 0.0}
    tokens = choices = 0.0
    letters = torch.tensor([packer.id_of(letter) for letter in "ABCD"])
    drawn = islice(Batches(pool, _CHECK_PIXELS, seed=5), _CHECK_BATCHES)
    for number, batch in enumerate(drawn):
        packed = _pack(packer, asked_of(batch, f"check {number}", EVERYTHING), batch.pixels)
        with torch.autocast("cpu", torch.bfloat16):
            sight = _look(student, stage, batch, generator)
            logits = student(sight.features, packed).answers
        totals["loss"] += float(losses.answers(logits, packed)) / _CHECK_BATCHES
        right = logits.argmax(-1) == packed.targets
        totals["token"] += float(right.sum())
        tokens += len(right)
        letter = torch.isin(packed.targets, letters)
        best = letters[logits[letter][:, letters].argmax(-1)]
        totals["choice"] += float((best == packed.targets[letter]).sum())
        choices += float(letter.sum())
    totals["token"] /= tokens
    totals["choice"] /= choices
    return {name: round(value, 4) for name, value in totals.items()}


@torch.no_grad()
def agreement(
    student: Student, packer: Packer, losses: Losses, scored: Sequence[Labelled]
) -> dict[str, dict[str, float]]:
    """`people`: how well scores read from the level words go with theirs (SRCC, PLCC).

    Empty where that is undefined: with one picture, or where all scores are equal.
    """
    ours: list[float] = []
    theirs: list[float] = []
    for picture in scored:
        pixels = normalise(as_the_model_sees(picture.path)[None])
        packed = _pack(packer, [picture.examples], pixels)
        with torch.autocast("cpu", torch.bfloat16):
            logits = student(student.see(pixels).features, packed).levels
        ours += losses.scores(logits).tolist()
        theirs += (packed.level_targets @ losses.level_values).tolist()
    found = correlate(ours, theirs)
    if found is None:
        return {}
    return {"people": {"srcc": round(found.srcc, 4), "plcc": round(found.plcc, 4)}}


def _weighted(parts: Mapping[str, Tensor]) -> Tensor:
    return sum((_WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))


def _optimiser(student: Student, stage: Stage) -> Optimiser:
    model = student.model.model
    modules: dict[str, tuple[nn.Module, float]] = {
        "text": (model.language_model, 1.0),
        "options": (student.option_head, 1.0),
        "testify": (student.testify, 1.0),
    }
    if stage.sees:
        modules |= {
            "tower": (model.visual, _TOWER_SHARE),
            "witness": (student.witness, _TOWER_SHARE),
            "bypass": (student.bypass, _BYPASS_SHARE),
        }
    if student.imitate:
        modules["imitate"] = (student.imitate, 1.0)
    return Optimiser(modules)


def train_language(
    stage: Stage,
    preset: str,
    tokenizer: Tokenizer,
    prompts: PromptSet,
    pool: Path,
    real: Sequence[Labelled],
    scored: Sequence[Labelled],
    checks: dict[str, Path],
    run: Path,
    minutes: float,
    start: Path | None = None,
    taught_by: Path | None = None,
    recipe: Recipe = WHOLE,
) -> None:
    """Train one stage for so many minutes in all.

    `real` are labelled photographs to learn from beside the pool, `scored` others, of each of which
    a person's score is known, to validate on.

    It goes on from the stage's own file in `run` where there is one. Else reading begins with the
    checkpoint folder `start` or with fresh weights, and language with what reading left
    (`reading.pt`) and the tower of stage one (`vision.pt`); there the checkpoint folder
    `taught_by` may teach, too (`teaching.py`).

    Alone, or in every process of a team (`team.py`), of which the first validates and saves.
    Writes `<stage>.pt` and `<stage>.jsonl` (see `Course`).
    """
    taught_by = taught_by if stage.sees and "teaching" in recipe else None
    teacher = Teacher(taught_by, tokenizer) if taught_by else None
    student = Student(preset, tokenizer, teacher.width if teacher else 0)
    tasks, weights = mixed(stage, recipe)
    packer = Packer(tokenizer, prompts, weights)
    losses = Losses(packer, tokenizer.get_vocab_size())
    optimiser = _optimiser(student, stage)
    course = Course(run, stage.name, minutes, student, optimiser, leads=rank() == 0)

    def begin() -> None:
        if stage.sees:
            read = averaged_weights(run / f"{READING.name}.pt")
            student.load_state_dict(read, strict=teacher is None)
            student.take_tower(run / "vision.pt")
        elif start:
            student.load_checkpoint(start, tokenizer)

    def validate(averaged: Student) -> dict[str, dict[str, float]]:
        figures = {
            name: check(averaged, stage, packer, losses, path) for name, path in checks.items()
        }
        if stage.sees and scored:
            figures |= agreement(averaged, packer, losses, scored[:_CHECK_PEOPLE])
        return figures

    course.begin(begin)
    generator = torch.Generator()
    labelled = real if stage.sees and "photographs" in recipe else ()
    found = RealBatches(labelled, _REAL_BATCH, rank())
    for batch in Batches(pool, stage.pixels, rank(), course.step, "mirroring" in recipe):
        asked = asked_of(batch, f"{rank()} {course.step}", tasks, recipe)
        packed = _pack(packer, asked, batch.pixels)
        generator.manual_seed(course.step * 64 + rank())
        tower_learns = stage.sees and course.step % stage.tower_every == 0
        with torch.autocast("cpu", torch.bfloat16):
            sight = _look(student, stage, batch, generator, tower_learns, "doubt" in recipe)
            outputs = student(sight.features, packed)
            taught = teacher(batch.pixels, packed) if teacher else None
        parts = losses.all(outputs, packed)
        if taught:
            parts |= lessons(student, sight, outputs, taught, packed)
        if tower_learns and "evidence" in recipe:
            truth = grade_targets(batch.coverage, batch.severity)
            parts["evidence"] = evidence_loss(sight.evidence, truth, looks_of(batch.pixels))
        _weighted(parts).backward()
        if found:
            pixels, examples = found.draw(course.step)
            packed = _pack(packer, examples, pixels)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = student(student.see(pixels, tower_learns).features, packed)
            _weighted(losses.all(outputs, packed)).backward()
        course.seconds = average_gradients(student, course.seconds)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step(course.rate(stage.rate))
        figures = {name: float(part.detach()) for name, part in parts.items()}
        course.advance(len(batch.records), figures, validate)
        if course.done:
            return
