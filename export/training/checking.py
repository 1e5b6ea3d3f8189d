"""Validation of the stages that read: on pools of spoiled pictures, and beside people."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from export.supervision.labelled import Labelled
from export.supervision.mixture import EVERYTHING
from export.training.batches import Batches, normalise
from export.training.evidence import CellAucs
from export.training.known import scores_of
from export.training.losses import Losses
from export.training.packing import Packed, Packer
from export.training.precision import autocast
from export.training.real import as_the_model_sees
from export.training.stages import Stage, asked_of, look, pack_cells
from export.training.student import Student
from idetex_edge.boxes import overlap
from idetex_edge.evaluation.correlation import correlate

_BATCHES: Final = 24
_PIXELS: Final = 225_000
_PEOPLE: Final = 128
_FOUND: Final = 0.5


def told_boxes(logits: Tensor, packed: Packed, number_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest boxes and the true ones, both [K, 4] in 0..1000, but for repeated ones.

    logits: [A, vocabulary] of the packed answers; number_ids: the tokens of 0..1000.
    """
    at = torch.searchsorted(packed.rows, packed.box_rows)
    new = ~packed.repeated[at].all(1)
    return logits[at[new]][..., number_ids].argmax(-1), packed.boxes[new]


@torch.no_grad()
def check(
    student: Student, stage: Stage, packer: Packer, losses: Losses, pool: Path
) -> dict[str, float]:
    """Teacher-forced figures on a pool: loss, token accuracy, choice accuracy, boxes found.

    A box is found where the likeliest numbers, each after the right ones before it, overlap it by
    half; boxes that are only said again do not count. A stage that sees has `cells` besides: the
    mean AUC of what its tower says of them (`evidence.CellAucs`).
    """
    generator = torch.Generator().manual_seed(11)
    totals = {"loss": 0.0, "token": 0.0, "choice": 0.0, "box": 0.0}
    tokens = choices = boxes = 0.0
    cells = CellAucs()
    letters = torch.tensor([packer.id_of(letter) for letter in "ABCD"])
    drawn = islice(Batches(pool, _PIXELS, seed=5), _BATCHES)
    for number, batch in enumerate(drawn):
        packed = pack_cells(packer, asked_of(batch, f"check {number}", EVERYTHING), batch.pixels)
        with autocast():
            sight = look(student, stage, batch, generator)
            logits = student(sight.features, packed).answers
        if stage.sees:
            cells.add(sight.evidence, batch)
        totals["loss"] += float(losses.answers(logits, packed)) / _BATCHES
        right = logits.argmax(-1) == packed.targets
        totals["token"] += float(right.sum())
        tokens += len(right)
        letter = torch.isin(packed.targets, letters)
        best = letters[logits[letter][:, letters].argmax(-1)]
        totals["choice"] += float((best == packed.targets[letter]).sum())
        choices += float(letter.sum())
        guessed, truth = told_boxes(logits, packed, packer.number_ids)
        pairs = zip(guessed.tolist(), truth.tolist(), strict=True)
        totals["box"] += sum(overlap(ours, theirs) >= _FOUND for ours, theirs in pairs)
        boxes += len(truth)
    totals["token"] /= tokens
    totals["choice"] /= choices
    totals["box"] /= max(1.0, boxes)
    if stage.sees:
        totals["cells"] = cells.by_name()["mean"]
    return {name: round(value, 4) for name, value in totals.items()}


Judge = Callable[[Tensor, Labelled], Tensor]
"""The scores [1] that a model gives normalised pixels [1, 3, H, W] of a labelled picture."""


def scores_by(student: Student, packer: Packer, losses: Losses) -> Judge:
    """Scores as a student says them: the expected value of the level words."""

    def judge(pixels: Tensor, picture: Labelled) -> Tensor:
        packed = pack_cells(packer, [picture.examples], pixels)
        return losses.scores(student(student.see(pixels).features, packed).levels)

    return judge


@torch.no_grad()
def agreement(judge: Judge, scored: Sequence[Labelled]) -> dict[str, dict[str, float]]:
    """`people`: how well scores go with people's (SRCC, PLCC), on the first `_PEOPLE` photographs.

    Empty where that is undefined: with one picture, or where all scores are equal.
    """
    ours: list[float] = []
    for picture in scored[:_PEOPLE]:
        pixels = normalise(as_the_model_sees(picture.path)[None])
        with autocast():
            ours += judge(pixels, picture).tolist()
    found = correlate(ours, scores_of([p.examples for p in scored[:_PEOPLE]]).tolist())
    if found is None:
        return {}
    return {"people": {"srcc": round(found.srcc, 4), "plcc": round(found.plcc, 4)}}
