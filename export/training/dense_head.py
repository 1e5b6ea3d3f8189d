"""Dense supervision of the vision tower: what is wrong in every 28 px cell, and how badly.

The head is dropped after training. For each distortion it gives three ordinal logits (at least
minor, at least moderate, severe); the target is the share of the cell so affected.
"""

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn

from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


class DenseHead(nn.Module):
    """Maps image features [B, cells, width] to logits [B, cells, 10, 3]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(DISTORTIONS) * len(SEVERITIES))
        nn.init.constant_(self.out.bias, -3.0)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of image features."""
        logits = self.out(self.norm(features))
        return logits.unflatten(-1, (len(DISTORTIONS), len(SEVERITIES)))


def dense_targets(coverage: Tensor, severity: Tensor) -> Tensor:
    """Targets [B, cells, 10, 3] from coverage and severity [B, 10, h, w]."""
    grades = torch.arange(1, len(SEVERITIES) + 1)
    reached = severity.flatten(2).transpose(1, 2)[..., None] >= grades
    return coverage.flatten(2).transpose(1, 2)[..., None] * reached


def dense_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over cells and summed over distortions and grades."""
    loss = nn_f.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return loss.mean((0, 1)).sum()


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
