"""Learning from a teacher beside the truth: what it says, where it looks, what its tower sees.

Logits are matched as Hinton et al. do ("Distilling the Knowledge in a Neural Network", 2015);
attention as Wang et al. do ("MiniLM", 2020), but in every layer and all its heads as one, since
where to look for an answer is what a fresh language model lacks longest; features by direction,
through a linear map that is dropped afterwards (Romero et al., "FitNets", 2015), whitened, since
four fifths of a folded tower's features are the same in every cell, and of the rest nine tenths are
how light and coloured a cell is. All need a teacher of our own kind, that shares the student's
vocabulary; any other can answer pictures (`python -m export label`), which `train --vida` learns
from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as nn_f
from tokenizers import Tokenizer
from torch import Tensor

from export.pool.shards import Shard, shard_folders
from export.student.architecture import HEAD_DIM, require_rotary_base, trained_model
from export.student.growing import places_among
from export.training.batched_language import Attention
from export.training.batched_vision import encode
from export.training.batches import normalise
from export.training.packing import Block, Packed
from export.training.student import Outputs, read_packed
from export.training.unfolding import whitening
from idetex_edge.errors import ExportError

_TEMPERATURE: Final = 2.0

_SHARDS: Final = 12
_PICTURES: Final = 4
"""How many shards of a pool, and pictures of each, its features are whitened on."""

_LEAST: Final = 1e-30
"""Added for logarithms of what is masked; a key that a student dropped keeps its gradient."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What a teacher makes of a batch.

    Logits [A, vocabulary] and [B, vocabulary], every layer's attention (`Trace`), and the
    whitened features of its tower [B, cells, width].
    """

    answers: Tensor
    levels: Tensor
    attention: Attention
    seen: Tensor


class TowerTeacher:
    """The vision tower of a checkpoint of one of our presets, frozen.

    Its features are whitened on the first pictures of a pool, which are the same in every process
    of a team and when training goes on, though a pool may grow; `width` is how many numbers remain.
    """

    def __init__(self, checkpoint: Path, pool: Path) -> None:
        self.model = trained_model(checkpoint).eval().requires_grad_(False)
        shards = map(Shard.open, shard_folders(pool)[:_SHARDS])
        pictures = [np.array(shard.images[:_PICTURES]) for shard in shards]
        features = torch.cat([self._features(normalise(p)).flatten(0, 1) for p in pictures])
        self._centre, self._directions = whitening(features)
        self.width = self._directions.shape[1]

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        return encode(self.model.model.visual, pixels)

    def _whitened(self, features: Tensor) -> Tensor:
        # In float32: what is weak is made strong, and so is its rounding.
        with torch.autocast("cpu", enabled=False):
            return (features.float() - self._centre) @ self._directions

    def see(self, pixels: Tensor) -> Tensor:
        """Whitened features [B, cells, width] of normalised pixels [B, 3, H, W]."""
        return self._whitened(self._features(pixels))


class Teacher(TowerTeacher):
    """A whole checkpoint of one of our presets, frozen.

    Raises ExportError when its vocabulary, its heads or its rotary base are not the student's.
    """

    def __init__(self, checkpoint: Path, tokenizer: Tokenizer, pool: Path) -> None:
        path = checkpoint / "tokenizer.json"
        if not path.is_file():
            raise ExportError(f"{checkpoint} has no tokenizer.json; give a checkpoint folder")
        if Tokenizer.from_file(str(path)).get_vocab() != tokenizer.get_vocab():
            raise ExportError(
                f"{checkpoint} has another vocabulary, so its logits say nothing to the student; "
                "let it answer pictures (python -m export label) and train with --vida"
            )
        require_rotary_base(checkpoint)
        super().__init__(checkpoint, pool)
        text: Any = self.model.model.language_model
        size = int(text.layers[0].self_attn.head_dim)
        if size != HEAD_DIM:
            raise ExportError(f"{checkpoint} has heads of {size}, not {HEAD_DIM}; give our preset")

    @torch.no_grad()
    def __call__(self, pixels: Tensor, packed: Packed) -> Taught:
        """Answer packed questions about normalised pixels [B, 3, H, W]."""
        features = self._features(pixels)
        passed = read_packed(self.model, features, packed, told=True)
        head = self.model.lm_head
        answers, levels = head(passed.last[packed.rows]), head(passed.last[packed.level_rows])
        return Taught(answers, levels, passed.attention, self._whitened(features))


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far features [B, cells, width] point from a teacher's: one minus the cosine, 0..2."""
    return 1 - nn_f.cosine_similarity(ours.float(), theirs.float(), dim=-1).mean()


def lessons(outputs: Outputs, taught: Taught, packed: Packed) -> dict[str, Tensor]:
    """How far a student's language model is from its teacher's, by what is compared.

    logits: Kullback-Leibler divergence of next tokens and levels at a raised temperature, answers
    weighted as in the loss; attention: that of where tokens look, each layer's with the teacher's
    at the same depth, the mean over layers and tokens.
    """
    answers = _divergence(outputs.answers, taught.answers)
    logits = (answers * packed.weights).sum() / packed.weights.sum().clamp(min=1e-9)
    levels = _divergence(outputs.levels, taught.levels)
    logits = logits + levels.sum() / max(1, len(levels))
    attention = _astray(outputs.trace.attention, taught.attention, packed.blocks)
    return {"logits": logits, "attention": attention}


def _astray(ours: Attention, theirs: Attention, blocks: Sequence[Block]) -> Tensor:
    """KL(theirs || ours) of attention, the mean over our layers and all tokens of the blocks."""
    parts = [
        nn_f.kl_div((our + _LEAST).log(), their, reduction="none").sum(-1)[block.used]
        for layer, place in zip(ours, places_among(len(ours), len(theirs)), strict=True)
        for our, their, block in zip(layer, theirs[place], blocks, strict=True)
    ]
    return torch.cat(parts).mean()


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL(theirs || ours) of each row of logits, times the temperature's square."""
    log_ours = (ours.float() / _TEMPERATURE).log_softmax(-1)
    log_theirs = (theirs.float() / _TEMPERATURE).log_softmax(-1)
    return (log_theirs.exp() * (log_theirs - log_ours)).sum(-1) * _TEMPERATURE**2
