"""The truth about every 28 px cell of a picture, in numbers, as far as it is known.

For each distortion three grades (at least minor, at least moderate, severe), and the cell's looks:
mean luma, Cb and Cr, and its fine detail, each scaled to about unit range; and a score of the
picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as nn_f
from torch import Tensor

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

_LOOKS_CENTRE: Final = (0.5, 0.0, 0.0, 0.02)
_LOOKS_SCALE: Final = (4.0, 8.0, 8.0, 40.0)


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
