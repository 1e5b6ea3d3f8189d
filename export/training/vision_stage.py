"""Stage one: the vision tower alone learns to give evidence of every cell (`evidence.py`)."""

import time
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from export.recipe import WHOLE, Recipe
from export.student.architecture import PRESETS, configure, create, weights_under
from export.training.batched_vision import encode
from export.training.batches import Batch, Batches
from export.training.checking import agreement
from export.training.course import GOING_ON, Clock, Course, put_into
from export.training.evidence import CellAucs, evidence_head, evidence_loss, score_loss, score_told
from export.training.known import Known, known_of
from export.training.optimiser import Optimiser
from export.training.precision import autocast
from export.training.real import RealBatches, placed, scored
from export.training.stages import Material, real_of
from export.training.teaching import TowerTeacher, apart
from export.training.team import average_gradients, rank

_PIXELS = 1_200_000
_RATE = 1.2e-3
_REAL_PIXELS = 1_020_000
"""Four photographs of 512 x 512 px."""
_REAL_EVERY = 3
_LABELLED_EVERY = 2
"""Every so many steps look at labelled pictures instead of spoiled ones."""
_FEATURES = 2.0
"""What a teacher's features weigh beside the loss of a batch's evidence."""

_PLACEHOLDER_IDS = {
    name: index
    for index, name in enumerate(
        (
            "<|im_end|>",
            "<|endoftext|>",
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_start|>",
            "<|vision_end|>",
        )
    )
}


class Witness(nn.Module):
    """A preset's vision tower with a head that puts what it sees into evidence.

    `imitate`, where there is a teacher, maps its features to the teacher's, and is dropped later.
    """

    def __init__(self, preset: str, teacher_width: int = 0) -> None:
        super().__init__()
        sizes = PRESETS[preset]
        self.tower = create(configure(sizes, _PLACEHOLDER_IDS, 64)).model.visual
        self.head = evidence_head(sizes.text_width)
        self.imitate = nn.Linear(sizes.text_width, teacher_width) if teacher_width else None

    def see(self, pixels: Tensor) -> Tensor:
        """Features [B, cells, width] of normalised pixels [B, 3, H, W]."""
        return encode(self.tower, pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Evidence [B, cells, 35] of normalised pixels [B, 3, H, W]."""
        return self.head(self.see(pixels))


@torch.no_grad()
def cell_scores(model: Witness, pool: Path, batches: int = 12) -> dict[str, float]:
    """Per-cell AUCs (`CellAucs`) over a fixed draw from a pool."""
    found = CellAucs()
    with autocast():
        for batch in islice(Batches(pool, 1_500_000, seed=7), batches):
            found.add(model(batch.pixels), batch)
    return found.by_name()


def _looked_at(batch: Batch, labelled: RealBatches, step: int) -> tuple[Tensor, Known]:
    if labelled and step % _LABELLED_EVERY == _LABELLED_EVERY - 1:
        drawn = labelled.draw(step)
        return drawn.pixels, drawn.known
    return batch.pixels, known_of(batch)


def train_vision(
    preset: str,
    material: Material,
    run: Path,
    minutes: float,
    start: Path | None = None,
    taught_by: Path | None = None,
    recipe: Recipe = WHOLE,
    clock: Clock = time.monotonic,
) -> None:
    """Train a preset's tower on a pool for so many minutes in all; resumes from `run`.

    It begins with the tower and witness in `start` (`unfolding.write_start`) or with fresh ones;
    the tower of the checkpoint folder `taught_by` may teach it. Every second step looks at labelled
    pictures instead of spoiled ones where there are any whose boxes are known, and every third one
    learns the scores of real pictures that have a score or level, too.

    Alone, or in every process of a team (`team.py`), of which the first validates and saves.
    Writes `vision.pt` and `vision.jsonl` (see `Course`).
    """
    teacher = TowerTeacher(taught_by, material.pool) if taught_by and "teaching" in recipe else None
    model = Witness(preset, teacher.width if teacher else 0)
    optimiser = Optimiser({"witness": (model, 1.0)})
    course = Course(run, "vision", minutes, model, optimiser, rank() == 0, clock)

    def begin() -> None:
        if start:
            weights = torch.load(start, weights_only=True)
            for prefix, module in (("model.model.visual.", model.tower), ("witness.", model.head)):
                put_into(module, weights_under(prefix, weights), start)

    def validate(averaged: Witness) -> dict[str, dict[str, float]]:
        figures = {name: cell_scores(averaged, path) for name, path in material.checks.items()}
        return figures | agreement(lambda pixels, _: score_told(averaged(pixels)), material.scored)

    peak = _RATE * (GOING_ON if start else 1.0)
    course.begin(begin)
    if course.done:
        return
    real = real_of(material, recipe)
    mirrors = "mirroring" in recipe
    judged = RealBatches(scored(real), _REAL_PIXELS, f"judged {rank()}", mirrors)
    labelled = RealBatches(placed(real), _PIXELS, f"labelled {rank()}", mirrors)
    for batch in Batches(material.pool, _PIXELS, rank(), course.step, mirrors):
        pixels, known = _looked_at(batch, labelled, course.step)
        with autocast():
            seen = model.see(pixels)
            evidence = model.head(seen)
            taught = teacher.see(pixels) if teacher else None
        figures = {"loss": evidence_loss(evidence, known)}
        if taught is not None and model.imitate:
            figures["features"] = apart(model.imitate(seen.float()), taught)
        (figures["loss"] + _FEATURES * figures.get("features", 0.0)).backward()
        if judged and course.step % _REAL_EVERY == 0:
            drawn = judged.draw(course.step)
            with autocast():
                evidence = model(drawn.pixels)
            figures["scores"] = score_loss(evidence, drawn.known.scores)
            figures["scores"].backward()
        course.seconds = average_gradients(model, course.tick())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(course.rate(peak))
        losses = {name: float(figure.detach()) for name, figure in figures.items()}
        course.advance(len(pixels), losses, validate)
        if course.done:
            return
