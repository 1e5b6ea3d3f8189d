"""What packed answers cost: next tokens, soft numbers, soft levels."""

from typing import Final

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.training.packing import Packed, Packer
from export.training.student import Outputs

_NUMBER_SPREAD: Final = 12.0


class Losses:
    """The losses over packed answers: next tokens, soft numbers, soft levels."""

    def __init__(self, packer: Packer, vocabulary: int) -> None:
        numbers = packer.number_ids
        self._level_ids = packer.level_ids
        self.level_values = torch.arange(1.0, len(packer.level_ids) + 1)
        self._number_of = torch.full((vocabulary,), -1)
        self._number_of[numbers] = torch.arange(len(numbers))
        self._numbers = numbers

    def all(self, outputs: Outputs, packed: Packed) -> dict[str, Tensor]:
        """Each of the losses below, by name."""
        return {
            "loss": self.answers(outputs.answers, packed),
            "options": self.options(outputs.options, packed),
            "levels": self.levels(outputs.levels, packed),
        }

    def answers(self, logits: Tensor, packed: Packed) -> Tensor:
        """Weighted cross-entropy; a coordinate's neighbours share its probability.

        logits: [A, vocabulary]. Numbers are learnt as a bell `_NUMBER_SPREAD` thousandths wide:
        a box edge is never known to the thousandth. One that is said again is known, and copied.
        """
        log = logits.float().log_softmax(-1)
        exact = -log.gather(1, packed.targets[:, None])[:, 0]
        number = self._number_of[packed.targets]
        at = ((number >= 0) & ~packed.repeated).nonzero()[:, 0]
        grid = torch.arange(len(self._numbers))
        bell = -((grid - number[at][:, None]) ** 2) / (2 * _NUMBER_SPREAD**2)
        soft = -(log[at[:, None], self._numbers] * bell.softmax(-1)).sum(-1)
        losses = exact.index_put((at,), soft)
        return (losses * packed.weights).sum() / packed.weights.sum().clamp(min=1e-9)

    def levels(self, logits: Tensor, packed: Packed) -> Tensor:
        """Cross-entropy of the level words against their soft targets, over the vocabulary."""
        log = logits.float().log_softmax(-1)[:, self._level_ids]
        return -(packed.level_targets * log).sum() / max(1, len(log))

    def scores(self, logits: Tensor) -> Tensor:
        """Scores [B] in 1..5 of logits [B, vocabulary]: the level words' expected value."""
        return logits.float()[:, self._level_ids].softmax(-1) @ self.level_values

    def options(self, logits: Tensor, packed: Packed) -> Tensor:
        """Binary cross-entropy of options being the answer; 0 where a batch asks no questions."""
        total = nn_f.binary_cross_entropy_with_logits(
            logits.float(), packed.option_right, reduction="sum"
        )
        return total / max(1, len(packed.option_right))
