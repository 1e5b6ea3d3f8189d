"""A checkpoint's evidence found again, so that training goes on where it ended.

`Student.fold` takes witness, testimony and bypass into the patch merger, and a checkpoint keeps
their product alone. While the bypass is small, the language model reads nothing that is not made of
a cell's evidence: a witness fitted to the truth of some pictures finds the numbers again, and least
squares the layer that tells them. What the bypass had handed on besides is left out.

A folded merger gives few directions, some of them hardly, and Muon steps as far in each. So its
last layer is written anew (`_rebase`): first what evidence is a multiple of, in weights as large as
fresh ones.
"""

import math
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.training.batched_vision import encode
from export.training.batches import Batches
from export.training.evidence import evidence_head, evidence_loss
from export.training.known import Known, known_of
from export.training.student import Student

_START: Final = "start.pt"

_BATCHES: Final = 120
_PIXELS: Final = 600_000
_CELLS: Final = 400
"""Of each batch; more of the same pictures teach little."""

_STEPS: Final = 1_200
_STEP_CELLS: Final = 2_048
_RATE: Final = 1e-2
_RIDGE: Final = 1e-5
_LEAST_VARIANCE: Final = 1e-6
_LEAST_SCALE: Final = 1e-6


@torch.no_grad()
def _seen(student: Student, pool: Path, batches: int) -> tuple[Tensor, Known]:
    """Features [N, width] of cells, and what is known of them, each as a picture of one cell."""
    generator = torch.Generator().manual_seed(0)
    parts: list[tuple[Tensor, ...]] = []
    for batch in islice(Batches(pool, _PIXELS, seed=3), batches):
        # Not in bfloat16, whose rounding is as large as the weakest directions.
        features = encode(student.model.model.visual, batch.pixels).flatten(0, 1)
        known = known_of(batch)
        grades, looks = known.grades.flatten(0, 1), known.looks.flatten(0, 1)
        scores = known.scores.repeat_interleave(known.grades.shape[1])
        some = torch.randperm(len(features), generator=generator)[:_CELLS]
        parts.append((features[some], grades[some], looks[some], scores[some]))
    features, grades, looks, scores = (torch.cat(part) for part in zip(*parts, strict=True))
    return features, Known(grades[:, None], looks[:, None], scores)


def unfold(student: Student, pool: Path, batches: int = _BATCHES, steps: int = _STEPS) -> float:
    """Fit the witness and the testimony of a student that took a checkpoint's weights.

    Its tower looks at so many batches of a pool. The bypass is emptied, and what the tower gives
    is told apart anew: only what the language model reads stays the same. Returns how much of the
    features' variance the testimony explains, 0..1.
    """
    features, known = _seen(student, pool, batches)
    centre, whitener = whitening(features)
    scaled = (features - centre) @ whitener
    head = evidence_head(scaled.shape[1])
    torch.nn.init.zeros_(head.weight)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        some = torch.randint(0, len(scaled), (_STEP_CELLS,), generator=generator)
        optimiser.param_groups[0]["lr"] = _RATE * (1 - step / steps)
        optimiser.zero_grad()
        picked = Known(known.grades[some], known.looks[some], known.scores[some])
        evidence_loss(head(scaled[some])[:, None], picked).backward()
        optimiser.step()
    with torch.no_grad():
        weight = head.weight @ whitener.T
        student.witness.weight.copy_(weight)
        student.witness.bias.copy_(head.bias - weight @ centre)
        told = student.witness(features)
        inputs = torch.cat((told, torch.ones(len(told), 1)), dim=1).double()
        square = inputs.T @ inputs
        square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        solved = torch.linalg.solve(square, inputs.T @ features.double()).float()
        student.testify.weight.copy_(solved[:-1].T)
        student.testify.bias.copy_(solved[-1])
        torch.nn.init.zeros_(student.bypass.weight)
        left = features - student.testify(told)
        _rebase(student)
        return 1 - float(left.square().sum() / (features - centre).square().sum())


def whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [width] of features and the directions [width, K] in which they vary, to unit size.

    Folded features vary in few directions, some of them hardly: fitted as they are, or each number
    by itself, a head finds the strong ones alone.
    """
    centre = features.mean(0)
    spread, directions = torch.linalg.eigh((features - centre).double().T.cov())
    kept = spread > _LEAST_VARIANCE * spread.max()
    return centre, (directions[:, kept] / spread[kept].sqrt()).float()


@torch.no_grad()
def _rebase(student: Student) -> None:
    """Let the merger's last layer give evidence itself, then features that nothing reads yet."""
    last, witness = student.merger_output, student.witness
    weight = witness.weight @ last.weight
    bias = witness.weight @ last.bias
    torch.nn.init.kaiming_uniform_(last.weight, a=math.sqrt(5))
    scale = (weight.norm(dim=1) / last.weight[: len(weight)].norm(dim=1)).clamp(min=_LEAST_SCALE)
    torch.nn.init.zeros_(last.bias)
    last.weight[: len(weight)] = weight / scale[:, None]
    last.bias[: len(weight)] = bias / scale
    torch.nn.init.zeros_(witness.weight)
    witness.weight.diagonal().copy_(scale)


def start_of(run: Path, preset: str, tokenizer: Tokenizer, checkpoint: Path, pool: Path) -> Path:
    """A run's `start.pt` (see `write_start`), written where it is missing."""
    file = run / _START
    if not file.exists():
        write_start(preset, tokenizer, checkpoint, pool, file)
    return file


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
