"""Learning from a teacher beside the truth: from its logits, and from what its tower sees.

Logits are matched as Hinton et al. do ("Distilling the Knowledge in a Neural Network", 2015);
features by direction, through a linear map that is dropped afterwards (Romero et al., "FitNets",
2015). Both need a teacher of our own kind, that shares the student's vocabulary; any other can
answer pictures (`python -m export label`), which `train --vida` learns from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as nn_f
from tokenizers import Tokenizer
from torch import Tensor

from export.student.architecture import HEAD_DIM, require_rotary_base, trained_model
from export.training.batched_vision import encode
from export.training.packing import Packed
from export.training.student import Outputs, Sight, Student, read_packed
from idetex_edge.errors import ExportError

_TEMPERATURE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Taught:
    """What a teacher makes of a batch: logits [A, vocabulary] and [B, vocabulary], its features."""

    answers: Tensor
    levels: Tensor
    seen: Tensor


class TowerTeacher:
    """The vision tower of a checkpoint of one of our presets, frozen; `width` is its features'."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = trained_model(checkpoint).eval().requires_grad_(False)
        self.width = self.model.lm_head.in_features

    @torch.no_grad()
    def see(self, pixels: Tensor) -> Tensor:
        """Features [B, cells, width] of normalised pixels [B, 3, H, W]."""
        return encode(self.model.model.visual, pixels)


class Teacher(TowerTeacher):
    """A whole checkpoint of one of our presets, frozen.

    Raises ExportError when its vocabulary, its heads or its rotary base are not the student's.
    """

    def __init__(self, checkpoint: Path, tokenizer: Tokenizer) -> None:
        path = checkpoint / "tokenizer.json"
        if not path.is_file():
            raise ExportError(f"{checkpoint} has no tokenizer.json; give a checkpoint folder")
        if Tokenizer.from_file(str(path)).get_vocab() != tokenizer.get_vocab():
            raise ExportError(
                f"{checkpoint} has another vocabulary, so its logits say nothing to the student; "
                "let it answer pictures (python -m export label) and train with --vida"
            )
        require_rotary_base(checkpoint)
        super().__init__(checkpoint)
        text: Any = self.model.model.language_model
        size = int(text.layers[0].self_attn.head_dim)
        if size != HEAD_DIM:
            raise ExportError(f"{checkpoint} has heads of {size}, not {HEAD_DIM}; give our preset")

    @torch.no_grad()
    def __call__(self, pixels: Tensor, packed: Packed) -> Taught:
        """Answer packed questions about normalised pixels [B, 3, H, W]."""
        seen = self.see(pixels)
        hidden = read_packed(self.model, seen, packed).last
        head = self.model.lm_head
        return Taught(head(hidden[packed.rows]), head(hidden[packed.level_rows]), seen)


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far features [B, cells, width] point from a teacher's: one minus the cosine, 0..2."""
    return 1 - nn_f.cosine_similarity(ours.float(), theirs.float(), dim=-1).mean()


def lessons(
    student: Student, sight: Sight, outputs: Outputs, taught: Taught, packed: Packed
) -> dict[str, Tensor]:
    """How far a student is from its teacher, by what is compared.

    logits: Kullback-Leibler divergence of next tokens and levels at a raised temperature, answers
    weighted as in the loss; features: one minus the cosine of mapped features, 0..2.
    """
    assert student.imitate is not None
    answers = _divergence(outputs.answers, taught.answers)
    logits = (answers * packed.weights).sum() / packed.weights.sum().clamp(min=1e-9)
    levels = _divergence(outputs.levels, taught.levels)
    logits = logits + levels.sum() / max(1, len(levels))
    return {"logits": logits, "features": apart(student.imitate(sight.seen.float()), taught.seen)}


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL(theirs || ours) of each row of logits, times the temperature's square."""
    log_ours = (ours.float() / _TEMPERATURE).log_softmax(-1)
    log_theirs = (theirs.float() / _TEMPERATURE).log_softmax(-1)
    return (log_theirs.exp() * (log_theirs - log_ours)).sum(-1) * _TEMPERATURE**2
