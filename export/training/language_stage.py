"""Stage two: the whole model learns all tasks, vision tower included, from packed questions."""

import copy
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from export.pool.photos import Photo
from export.pool.shards import CELL
from export.supervision.example import Example
from export.supervision.examples import examples_for, score_example
from export.training.averaging import Average
from export.training.batches import Batch, Batches
from export.training.dense_head import dense_loss, dense_targets
from export.training.losses import Losses
from export.training.packing import Packed, Packer
from export.training.progress import Progress, save_atomically
from export.training.scored import ScoredBatches
from export.training.student import Student
from export.training.team import average_gradients, rank
from idetex_edge.prompts import PromptSet

_PICTURE_BUDGET = 225_000
_DENSE_WEIGHT = 0.15
_LEVEL_WEIGHT = 0.5
_VISION_RATE = 0.4
_SCORED_EVERY = 6
_SCORED_BATCH = 4
_SEE_EVERY = 3
_OPTION_WEIGHT = 0.7


def _pack(packer: Packer, batch: Batch, random: Random) -> Packed:
    examples = [
        examples_for(record, mirrored, random)
        for record, mirrored in zip(batch.records, batch.mirrored, strict=True)
    ]
    height, width = batch.pixels.shape[-2:]
    return packer.pack(examples, height // CELL, width // CELL)


@torch.no_grad()
def check(student: Student, packer: Packer, losses: Losses, pool: Path) -> dict[str, float]:
    """Teacher-forced figures on a pool: loss, token accuracy, choice accuracy."""
    random = Random(11)
    totals = {"loss": 0.0, "token": 0.0, "choice": 0.0}
    tokens = choices = 0.0
    letters = torch.tensor([packer.id_of(letter) for letter in "ABCD"])
    batches = 24
    for batch in islice(Batches(pool, _PICTURE_BUDGET, seed=5), batches):
        packed = _pack(packer, batch, random)
        with torch.autocast("cpu", torch.bfloat16):
            logits = student(batch.pixels, packed).answers
        totals["loss"] += float(losses.answers(logits, packed)) / batches
        right = logits.argmax(-1) == packed.targets
        totals["token"] += float(right.sum())
        tokens += len(right)
        letter = torch.isin(packed.targets, letters)
        best = letters[logits[letter][:, letters].argmax(-1)]
        totals["choice"] += float((best == packed.targets[letter]).sum())
        choices += float(letter.sum())
    totals["token"] /= tokens
    totals["choice"] /= choices
    return {name: round(value, 4) for name, value in totals.items()}


def _optimiser(student: Student) -> torch.optim.AdamW:
    tower = list(student.model.model.visual.parameters())
    known = {id(p) for p in tower}
    rest = [p for p in student.parameters() if id(p) not in known]
    groups = [{"params": rest, "scale": 1.0}, {"params": tower, "scale": _VISION_RATE}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.03)


def train_language(
    preset: str,
    tokenizer: Tokenizer,
    prompts: PromptSet,
    pool: Path,
    scored: Sequence[Photo],
    checks: dict[str, Path],
    run: Path,
    minutes: float,
    start: Path | None = None,
) -> None:
    """Train the whole model for so many minutes in all.

    It goes on from `run`/model.pt where there is one; else it begins with the checkpoint folder
    `start`, or with stage one's `run`/vision.pt.

    Alone, or in every process of a team (`team.py`), of which the first checks and saves. Writes
    `model.pt` (weights, averaged weights, optimiser, progress) and a line a check to
    `language.jsonl`.
    """
    student = Student(preset, tokenizer)
    packer = Packer(tokenizer, prompts)
    losses = Losses(packer, tokenizer.get_vocab_size())
    optimiser = _optimiser(student)
    progress = Progress(minutes)
    saved = run / "model.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        student.load_state_dict(state["model"])
        average = Average(student)
        average.load(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        progress.load(state["progress"])
    else:
        if start:
            student.load_checkpoint(start)
        else:
            student.load_tower(run / "vision.pt")
        average = Average(student)
    shadow = copy.deepcopy(student)
    seed = progress.step + 1_000_003 * rank()
    random = Random(seed)
    opinions = _scored_packs(ScoredBatches(scored, _SCORED_BATCH, seed), packer)
    history: list[tuple[float, float]] = []
    for batch in Batches(pool, _PICTURE_BUDGET, seed=seed + 1):
        progress.set_rate(optimiser, peak=1.6e-3)
        packed = _pack(packer, batch, random)
        learn_to_see = progress.step % _SEE_EVERY == 0
        with torch.autocast("cpu", torch.bfloat16):
            outputs = student(batch.pixels, packed, learn_to_see)
        answer = losses.answers(outputs.answers, packed)
        right = losses.options(outputs.options, packed)
        loss = answer + _LEVEL_WEIGHT * losses.levels(outputs.levels, packed)
        loss = loss + _OPTION_WEIGHT * right
        if learn_to_see:
            truth = dense_targets(batch.coverage, batch.severity)
            loss = loss + _DENSE_WEIGHT * dense_loss(outputs.dense, truth)
        optimiser.zero_grad()
        loss.backward()
        if progress.step % _SCORED_EVERY == 0:
            pixels, packed = next(opinions)
            with torch.autocast("cpu", torch.bfloat16):
                levels = student(pixels, packed).levels
            (_LEVEL_WEIGHT * losses.levels(levels, packed)).backward()
        progress.seconds = average_gradients(student, progress.seconds)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        average.update(student)
        history.append((float(answer.detach()), float(right.detach())))
        due = progress.advance(len(batch.records)) or progress.done
        if due and rank() == 0:
            shadow.load_state_dict(average.weights)
            figures = {name: check(shadow, packer, losses, path) for name, path in checks.items()}
            answer_loss, option_loss = (
                sum(part) / len(history) for part in zip(*history, strict=True)
            )
            line = {
                **progress.state(),
                "loss": round(answer_loss, 4),
                "option_loss": round(option_loss, 4),
                "checks": figures,
            }
            history.clear()
            with (run / "language.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            save_atomically(
                {
                    "model": student.state_dict(),
                    "average": average.state(),
                    "optimiser": optimiser.state_dict(),
                    "progress": progress.state(),
                },
                saved,
            )
        if progress.done:
            return


def _scored_packs(scored: ScoredBatches, packer: Packer) -> Iterator[tuple[Tensor, Packed]]:
    for pixels, opinions in scored:
        height, width = pixels.shape[-2:]
        examples: list[list[Example]] = [[score_example(mos)] for mos in opinions]
        yield pixels, packer.pack(examples, height // CELL, width // CELL)
