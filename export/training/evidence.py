"""What is wrong in every 28 px cell, how it looks and how good it is: the truth of it, in numbers.

Evidence is what the vision tower learns to say of each cell before any word is learnt, and what
the language model learns to read before it sees a picture. For each distortion there are three
ordinal logits (at least minor, at least moderate, severe), then come the cell's looks: mean luma,
Cb and Cr, and its fine detail, each scaled to about unit range; last comes quality, a score less 3,
whose mean over all cells is the picture's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn

from export.distortions.compose import Truth
from export.distortions.filters import to_ycc
from export.pool.shards import CELL
from export.student.architecture import IMAGE_MEAN, IMAGE_STD
from export.supervision.example import Example
from export.supervision.levels import mos_of, pseudo_mos
from export.training.batches import Batch
from idetex_edge.vocabulary import BOX_SCALE, DISTORTIONS, SEVERITIES

GRADES: Final = len(DISTORTIONS) * len(SEVERITIES)
LOOKS: Final = 4
EVIDENCE: Final = GRADES + LOOKS + 1

_LOOKS_CENTRE: Final = (0.5, 0.0, 0.0, 0.02)
_LOOKS_SCALE: Final = (4.0, 8.0, 8.0, 40.0)
_LOOKS_WEIGHT: Final = 0.3
_QUALITY_CENTRE: Final = 3.0
_QUALITY_WEIGHT: Final = 2.0

ABSENT: Final = -4.5
PRESENT: Final = 2.5
"""The logits that a well-trained tower gives about what is plainly not there, and what is."""

_SHARED_ERROR: Final = 0.7
_CELL_ERROR: Final = 1.0
_LOOKS_ERROR: Final = 0.1
_QUALITY_SHARED_ERROR: Final = 0.3
_QUALITY_CELL_ERROR: Final = 0.5


@dataclass(frozen=True, slots=True)
class Known:
    """The truth about a batch of pictures.

    grades [B, cells, 30] in 0..1 and looks [B, cells, 4], cells in raster order; scores [B], 1..5.
    Grades are NaN throughout a picture of which nobody said what is wrong, scores where nobody
    scored it.
    """

    grades: Tensor
    looks: Tensor
    scores: Tensor


def evidence_head(width: int) -> nn.Linear:
    """A linear reading of image features [..., width] as evidence; dropped after training."""
    head = nn.Linear(width, EVIDENCE)
    nn.init.constant_(head.bias[:GRADES], -3.0)
    nn.init.zeros_(head.bias[GRADES:])
    return head


def grade_targets(coverage: Tensor, severity: Tensor) -> Tensor:
    """Targets [B, cells, 30] in 0..1 from coverage (0..1) and severity (0..3) [B, 10, h, w].

    Each is the share of the cell in which a distortion is at least of a grade.
    """
    grades = torch.arange(1, len(SEVERITIES) + 1)
    reached = severity.flatten(2).transpose(1, 2)[..., None] >= grades
    return (coverage.flatten(2).transpose(1, 2)[..., None] * reached).flatten(2)


def looks_of(pixels: Tensor) -> Tensor:
    """The looks [B, cells, 4] of normalised pixels [B, 3, H, W]."""
    mean = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    planes = to_ycc(pixels * std + mean)
    fine = (planes[:, :1] - nn_f.avg_pool2d(planes[:, :1], 3, 1, 1)).abs()
    cells = nn_f.avg_pool2d(torch.cat((planes, fine), dim=1), CELL)
    centred = cells.flatten(2).transpose(1, 2) - torch.tensor(_LOOKS_CENTRE)
    return centred * torch.tensor(_LOOKS_SCALE)


def known_of(batch: Batch) -> Known:
    """What is known of a batch of spoiled pictures."""
    return Known(
        grade_targets(batch.coverage, batch.severity),
        looks_of(batch.pixels),
        torch.tensor([pseudo_mos(record) for record in batch.records]),
    )


def known_of_labelled(
    pixels: Tensor, truths: Sequence[Sequence[Truth] | None], examples: Sequence[Sequence[Example]]
) -> Known:
    """What is known of normalised pixels [B, 3, H, W] from labels: boxes, and questions' levels."""
    rows, columns = (length // CELL for length in pixels.shape[-2:])
    grades = [
        torch.full((rows * columns, GRADES), math.nan)
        if found is None
        else box_grades(found, rows, columns)
        for found in truths
    ]
    return Known(torch.stack(grades), looks_of(pixels), scores_of(examples))


def box_grades(truths: Sequence[Truth], rows: int, columns: int) -> Tensor:
    """Targets [rows x columns, 30] in 0..1 of cells by distortions' boxes; see `grade_targets`."""
    grades = torch.zeros(len(DISTORTIONS), len(SEVERITIES), rows, columns)
    for truth in truths:
        x1, y1, x2, y2 = truth.box
        cells = _covered(y1, y2, rows)[:, None] * _covered(x1, x2, columns)
        reached = grades[DISTORTIONS.index(truth.type), : SEVERITIES.index(truth.severity) + 1]
        torch.maximum(reached, cells, out=reached)
    return grades.flatten(2).flatten(0, 1).T


def _covered(low: int, high: int, count: int) -> Tensor:
    """The share [count] of each of so many equal parts of 0..1000 that lies in low..high."""
    starts = torch.arange(count)
    first, last = low * count / BOX_SCALE, high * count / BOX_SCALE
    return ((starts + 1).clamp(max=last) - starts.clamp(min=first)).clamp(min=0)


def scores_of(examples: Sequence[Sequence[Example]]) -> Tensor:
    """Each picture's score [B] in 1..5, which its question for a level says; NaN without one."""
    return torch.tensor(
        [next((mos_of(e.levels) for e in row if e.levels), math.nan) for row in examples]
    )


def told(known: Known, generator: torch.Generator, doubtful: bool = True) -> Tensor:
    """Evidence [B, cells, 35] as a tower might give it that sees well on some pictures only.

    The truth as logits, with errors that all cells of a picture share (a distortion taken for
    milder, or for another) and errors of single cells, each picture's of its own size; those of
    looks and quality are alike in all. Unless `doubtful`, the truth alone.
    """
    batch, cells, _ = known.grades.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    doubt = torch.rand(batch, 1, 1, generator=generator)
    logits = ABSENT + (PRESENT - ABSENT) * known.grades
    looks = known.looks
    quality = (known.scores - _QUALITY_CENTRE)[:, None, None].expand(batch, cells, 1)
    if doubtful:
        logits = logits * (1 - 0.5 * doubt) + ABSENT * 0.3 * doubt
        logits = logits + _SHARED_ERROR * doubt * normal(batch, 1, GRADES)
        logits = logits + _CELL_ERROR * doubt * normal(batch, cells, GRADES)
        looks = looks + _LOOKS_ERROR * normal(batch, cells, LOOKS)
        quality = quality + _QUALITY_SHARED_ERROR * normal(batch, 1, 1)
        quality = quality + _QUALITY_CELL_ERROR * normal(batch, cells, 1)
    return torch.cat((logits, looks, quality), dim=-1)


def evidence_loss(evidence: Tensor, known: Known) -> Tensor:
    """How far evidence [B, cells, 35] is from what is known.

    Binary cross-entropy of the grades and a Huber loss of the looks, averaged over cells and
    summed over their numbers; and the loss of the score. A picture without grades has no loss of
    its cells.
    """
    said = ~known.grades.isnan().any(-1).any(-1)
    grades, seen, _ = evidence[said].float().split((GRADES, LOOKS, 1), dim=-1)
    wrong = nn_f.binary_cross_entropy_with_logits(grades, known.grades[said], reduction="sum")
    off = nn_f.huber_loss(seen, known.looks[said], reduction="sum")
    cells = evidence.shape[0] * evidence.shape[1]
    return (wrong + _LOOKS_WEIGHT * off) / cells + score_loss(evidence, known.scores)


def score_told(evidence: Tensor) -> Tensor:
    """The score [B] that evidence [B, cells, 35] gives of each picture, about 1..5."""
    return evidence[..., -1].float().mean(1) + _QUALITY_CENTRE


def score_loss(evidence: Tensor, scores: Tensor) -> Tensor:
    """Huber loss of the score that evidence [B, cells, 35] gives; scores [B], NaN where unknown."""
    judged = ~scores.isnan()
    told_scores, true = score_told(evidence)[judged], scores[judged]
    return _QUALITY_WEIGHT * nn_f.huber_loss(told_scores, true, reduction="sum") / len(scores)


def cell_auc(scores: Tensor, truth: Tensor) -> float:
    """Area under the ROC curve of scores against a boolean truth (both flat), by ranks."""
    positives = int(truth.sum())
    negatives = truth.numel() - positives
    if not positives or not negatives:
        return float("nan")
    ranks = torch.empty(truth.numel(), dtype=torch.float64)
    ranks[torch.argsort(scores)] = torch.arange(1, truth.numel() + 1, dtype=torch.float64)
    above = float(ranks[truth].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


class CellAucs:
    """How well evidence tells cells that show a distortion from others, over several batches."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._truths: list[Tensor] = []

    def add(self, evidence: Tensor, batch: Batch) -> None:
        """Take the evidence [B, cells, 35] of a batch's pictures."""
        grades = evidence.float()[..., : GRADES : len(SEVERITIES)]
        self._scores.append(grades.flatten(0, 1))
        self._truths.append(batch.coverage.flatten(2).transpose(1, 2).flatten(0, 1) > 0.5)

    def by_name(self) -> dict[str, float]:
        """The AUC of each distortion that some cells show and some do not, and their `mean`.

        The mean is NaN where there is no such distortion.
        """
        scores, truths = torch.cat(self._scores), torch.cat(self._truths)
        found = {
            name: round(cell_auc(scores[:, kind], truths[:, kind]), 3)
            for kind, name in enumerate(DISTORTIONS)
            if 0 < int(truths[:, kind].sum()) < len(truths)
        }
        mean = sum(found.values()) / len(found) if found else math.nan
        return found | {"mean": round(mean, 3)}
