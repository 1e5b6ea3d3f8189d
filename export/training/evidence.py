"""What a tower says of every 28 px cell: what is wrong with it, how it looks, how good it is.

Evidence is what the vision tower learns to say of each cell before any word is learnt, and what
the language model learns to read before it sees a picture. For each distortion there are three
ordinal logits (at least minor, at least moderate, severe), then come the cell's looks: mean luma,
Cb and Cr, and its fine detail, each scaled to about unit range; last comes quality, a score less 3,
whose mean over all cells is the picture's. The truth of it stands in `known.py`.
"""

import math
from typing import Final

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn

from export.training.batches import Batch
from export.training.known import GRADES, LOOKS, Known
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

EVIDENCE: Final = GRADES + LOOKS + 1

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


def evidence_head(width: int) -> nn.Linear:
    """A linear reading of image features [..., width] as evidence; dropped after training."""
    head = nn.Linear(width, EVIDENCE)
    nn.init.constant_(head.bias[:GRADES], -3.0)
    nn.init.zeros_(head.bias[GRADES:])
    return head


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
