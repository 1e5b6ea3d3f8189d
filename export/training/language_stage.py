"""Training of stages two and three (`stages.py`): all tasks, from packed questions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from export.recipe import WHOLE, Recipe
from export.supervision.example import Example
from export.training.batches import Batch, Batches
from export.training.checking import agreement, check, scores_by
from export.training.course import GOING_ON, Clock, Course
from export.training.evidence import evidence_loss
from export.training.known import known_of
from export.training.losses import Losses
from export.training.optimiser import Optimiser
from export.training.packing import Packer
from export.training.pointing import place_loss, pointing_loss
from export.training.precision import autocast
from export.training.real import Drawn, RealBatches
from export.training.stages import (
    READING,
    Material,
    Stage,
    asked_of,
    look,
    pack_cells,
    real_of,
    tasks_of,
    weights_of,
)
from export.training.student import Student
from export.training.teaching import Teacher, apart, lessons
from export.training.team import average_gradients, rank

_WEIGHTS: Final = {
    "loss": 1.0,
    "options": 0.7,
    "levels": 1.0,
    "evidence": 0.15,
    "places": 1.0,
    "pointing": 0.3,
    "logits": 0.7,
    "attention": 1.0,
    "features": 0.5,
}
_REAL_PIXELS: Final = 510_000
"""Two photographs of 512 x 512 px."""
_TOWER_SHARE: Final = 0.15
"""Of the rate: a step sees few pictures, and they should not undo what the tower learnt alone."""
_BYPASS_SHARE: Final = 0.1


def _weighted(parts: Mapping[str, Tensor]) -> Tensor:
    return sum((_WEIGHTS[name] * part for name, part in parts.items()), torch.zeros(()))


def _optimiser(student: Student, stage: Stage) -> Optimiser:
    model = student.model.model
    modules: dict[str, tuple[nn.Module, float]] = {
        "text": (model.language_model, 1.0),
        "options": (student.option_head, 1.0),
        "testify": (student.testify, 1.0),
        "places": (student.place_head, 1.0),
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


@dataclass(frozen=True, slots=True)
class _Lesson:
    """One step's losses of a student, by name, of spoiled pictures and of real ones."""

    student: Student
    stage: Stage
    packer: Packer
    losses: Losses
    teacher: Teacher | None
    recipe: Recipe

    def of_spoiled(
        self, batch: Batch, examples: Sequence[Sequence[Example]], step: int
    ) -> dict[str, Tensor]:
        packed = pack_cells(self.packer, examples, batch.pixels)
        generator = torch.Generator().manual_seed(step * 64 + rank())
        with autocast():
            doubtful = "doubt" in self.recipe
            sight = look(self.student, self.stage, batch, generator, doubtful)
            outputs = self.student(sight.features, packed, told=self.teacher is not None)
            taught = self.teacher(batch.pixels, packed) if self.teacher else None
        parts = self.losses.all(outputs, packed)
        if "pointing" in self.recipe:
            parts["places"] = place_loss(outputs.places, *packed.grid)
            parts["pointing"] = pointing_loss(outputs.trace, packed)
        if taught:
            parts |= lessons(outputs, taught, packed)
        if taught and self.student.imitate:
            parts["features"] = apart(self.student.imitate(sight.seen.float()), taught.seen)
        if self.stage.sees and "evidence" in self.recipe:
            parts["evidence"] = evidence_loss(sight.evidence, known_of(batch))
        return parts

    def of_real(self, drawn: Drawn) -> dict[str, Tensor]:
        packed = pack_cells(self.packer, drawn.examples, drawn.pixels)
        with autocast():
            sight = self.student.see(drawn.pixels)
            outputs = self.student(sight.features, packed)
        parts = self.losses.all(outputs, packed)
        if "evidence" in self.recipe:
            parts["evidence"] = evidence_loss(sight.evidence, drawn.known)
        return parts


def train_language(
    stage: Stage,
    preset: str,
    material: Material,
    run: Path,
    minutes: float,
    start: Path | None = None,
    taught_by: Path | None = None,
    recipe: Recipe = WHOLE,
    clock: Clock = time.monotonic,
) -> None:
    """Train one stage for so many minutes in all.

    It goes on from the stage's own file in `run` where there is one. Else it begins with the
    weights in `start` (`unfolding.write_start`); without, reading begins with fresh ones, and
    language with what reading left (`reading.pt`) and the tower of stage one (`vision.pt`). The
    checkpoint folder `taught_by` may teach (`teaching.py`); it sees the pictures that in reading
    the student is told of. Weights in `start` learn on at a share of reading's rate
    (`course.GOING_ON`), and lack the heads that are dropped after training.

    Alone, or in every process of a team (`team.py`), of which the first validates and saves.
    Writes `<stage>.pt` and `<stage>.jsonl` (see `Course`).
    """
    tokenizer = material.tokenizer
    teacher = (
        Teacher(taught_by, tokenizer, material.pool) if taught_by and "teaching" in recipe else None
    )
    student = Student(preset, tokenizer, teacher.width if teacher and stage.sees else 0)
    packer = Packer(tokenizer, material.prompts, weights_of(recipe))
    losses = Losses(packer, tokenizer.get_vocab_size())
    lesson = _Lesson(student, stage, packer, losses, teacher, recipe)
    optimiser = _optimiser(student, stage)
    leads = rank() == 0
    course = Course(run, stage.name, minutes, student, optimiser, leads, clock)

    def begin() -> None:
        if start:
            student.take_start(start)
        elif stage.sees:
            student.take_reading(run / f"{READING.name}.pt")
            student.take_tower(run / "vision.pt")

    def validate(averaged: Student) -> dict[str, dict[str, float]]:
        figures = {
            name: check(averaged, stage, packer, losses, pool)
            for name, pool in material.checks.items()
        }
        if stage.sees and material.scored:
            figures |= agreement(scores_by(averaged, packer, losses), material.scored)
        return figures

    peak = stage.rate * (GOING_ON if start and not stage.sees else 1.0)
    course.begin(begin)
    if course.done:
        return
    mirrors = "mirroring" in recipe
    real = real_of(material, recipe) if stage.sees else ()
    found = RealBatches(real, _REAL_PIXELS, f"real {rank()}", mirrors)
    for batch in Batches(material.pool, stage.pixels, rank(), course.step, mirrors):
        tasks = tasks_of(stage, recipe, 1.0 if start else course.share)
        asked = asked_of(batch, f"{rank()} {course.step}", tasks, recipe)
        parts = lesson.of_spoiled(batch, asked, course.step)
        _weighted(parts).backward()
        if found:
            _weighted(lesson.of_real(found.draw(course.step))).backward()
        course.seconds = average_gradients(student, course.tick())
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step(course.rate(peak))
        figures = {name: float(part.detach()) for name, part in parts.items()}
        course.advance(len(batch.records), figures, validate)
        if course.done:
            return
