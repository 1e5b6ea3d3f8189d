"""A checkpoint's evidence found again, so that training goes on where it ended.

`Student.fold` takes witness, testimony and bypass into the patch merger, and a checkpoint keeps
their product alone. While the bypass is small, the language model reads nothing that is not made of
a cell's evidence: a witness fitted to the truth of some pictures finds the numbers again, and least
squares the layer that tells them. What the bypass had handed on besides is left out.
"""

from itertools import islice
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.training.batched_vision import encode
from export.training.batches import Batches
from export.training.evidence import evidence_head, evidence_loss, grade_targets, looks_of
from export.training.precision import autocast
from export.training.student import Student

_BATCHES: Final = 120
_PIXELS: Final = 600_000
_CELLS: Final = 400
"""Of each batch; more of the same pictures teach little."""

_STEPS: Final = 1_200
_STEP_CELLS: Final = 2_048
_RATE: Final = 1e-2
_RIDGE: Final = 1e-5


@torch.no_grad()
def _seen(student: Student, pool: Path, batches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, width] of cells, their grade targets [N, 30] and looks [N, 4]."""
    generator = torch.Generator().manual_seed(0)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in islice(Batches(pool, _PIXELS, seed=3), batches):
        with autocast():
            features = encode(student.model.model.visual, batch.pixels).float().flatten(0, 1)
        grades = grade_targets(batch.coverage, batch.severity).flatten(0, 1)
        looks = looks_of(batch.pixels).flatten(0, 1)
        some = torch.randperm(len(features), generator=generator)[:_CELLS]
        parts.append((features[some], grades[some], looks[some]))
    features, grades, looks = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, grades, looks


def unfold(student: Student, pool: Path, batches: int = _BATCHES, steps: int = _STEPS) -> float:
    """Fit the witness and the testimony of a student that took a checkpoint's weights.

    Its tower looks at so many batches of a pool. The bypass is emptied. Returns how much of the
    features' variance the testimony explains, 0..1.
    """
    features, grades, looks = _seen(student, pool, batches)
    centre, spread = features.mean(0), features.std(0) + 1e-6
    scaled = (features - centre) / spread
    head = evidence_head(features.shape[1])
    torch.nn.init.zeros_(head.weight)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        some = torch.randint(0, len(scaled), (_STEP_CELLS,), generator=generator)
        optimiser.param_groups[0]["lr"] = _RATE * (1 - step / steps)
        optimiser.zero_grad()
        evidence_loss(head(scaled[some])[None], grades[some][None], looks[some][None]).backward()
        optimiser.step()
    with torch.no_grad():
        weight = head.weight / spread
        student.witness.weight.copy_(weight)
        student.witness.bias.copy_(head.bias - weight @ centre)
        told = student.witness(features)
        known = torch.cat((told, torch.ones(len(told), 1)), dim=1).double()
        square = known.T @ known
        square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        solved = torch.linalg.solve(square, known.T @ features.double()).float()
        student.testify.weight.copy_(solved[:-1].T)
        student.testify.bias.copy_(solved[-1])
        torch.nn.init.zeros_(student.bypass.weight)
        left = features - student.testify(told)
        return 1 - float(left.square().sum() / (features - centre).square().sum())


def write_start(
    preset: str,
    tokenizer: Tokenizer,
    checkpoint: Path,
    pool: Path,
    file: Path,
    batches: int = _BATCHES,
    steps: int = _STEPS,
) -> float:
    """Write the weights of a student that begins as a checkpoint folder of ours, unfolded.

    The checkpoint may be of a smaller preset, and is grown. `pool` has pictures to look at; for the
    rest, and what is returned, see `unfold`. Raises ExportError where the checkpoint is not one of
    ours.
    """
    student = Student(preset, tokenizer)
    student.load_checkpoint(checkpoint)
    explained = unfold(student, pool, batches, steps)
    partial = file.with_suffix(".partial")
    torch.save(student.state_dict(), partial)
    partial.replace(file)
    return explained
