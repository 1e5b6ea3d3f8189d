"""Stage two: the whole model learns all tasks, vision tower included, from packed questions."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as nn_f
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from export.pool.shards import CELL
from export.student.architecture import PRESETS, configure, create
from export.student.tokenizer import special_ids
from export.supervision.example import Example
from export.supervision.examples import examples_for, score_example
from export.training.averaging import Average
from export.training.batched_language import hidden_states
from export.training.batched_vision import encode
from export.training.batches import Batch, Batches
from export.training.dense_head import DenseHead, dense_loss, dense_targets
from export.training.packing import Packed, Packer
from export.training.progress import Progress, save_atomically
from export.training.scored import ScoredBatches
from idetex_edge.prompts import PromptSet

_PICTURE_BUDGET = 450_000
_NUMBER_SPREAD = 6.0
_DENSE_WEIGHT = 0.15
_LEVEL_WEIGHT = 0.5
_VISION_RATE = 0.4
_SCORED_EVERY = 6
_SEE_EVERY = 3
_OPTION_WEIGHT = 0.7


@dataclass(frozen=True, slots=True)
class Outputs:
    """Logits of packed questions: answers [A, vocabulary], levels [B, vocabulary], options [O].

    `dense` [B, cells, 10, 3] are the dense head's.
    """

    answers: Tensor
    levels: Tensor
    options: Tensor
    dense: Tensor


class Student(nn.Module):
    """A preset's whole model with two heads that are dropped afterwards.

    `head` keeps the vision tower honest (`dense_head.py`). `option_head` tells from a middle
    layer, at the end of each option of a multiple-choice question, whether it is the answer: what
    the letter has to be read from. Without it, letters stay at chance for thousands of steps.
    """

    def __init__(self, preset: str, tokenizer: Tokenizer) -> None:
        super().__init__()
        sizes = PRESETS[preset]
        config = configure(sizes, special_ids(tokenizer), tokenizer.get_vocab_size())
        self.model: Qwen2_5_VLForConditionalGeneration = create(config)
        self.head = DenseHead(sizes.text_width)
        self.option_head = nn.Sequential(
            nn.LayerNorm(sizes.text_width), nn.Linear(sizes.text_width, 1)
        )

    def forward(self, pixels: Tensor, packed: Packed, learn_to_see: bool = True) -> Outputs:
        """Run the model over packed questions; the tower learns only when asked to."""
        with torch.set_grad_enabled(learn_to_see and torch.is_grad_enabled()):
            features = encode(self.model.model.visual, pixels)
        text = self.model.model.language_model
        embedded = [text.embed_tokens(block.ids) for block in packed.blocks]
        prefix = embedded[0]
        embedded[0] = torch.cat(
            (
                prefix[:, : packed.image.start],
                features.to(prefix.dtype),
                prefix[:, packed.image.stop :],
            ),
            dim=1,
        )
        joined = torch.cat([part.flatten(0, 1) for part in embedded])
        hidden, middle = hidden_states(text, joined, packed.blocks)
        return Outputs(
            answers=self.model.lm_head(hidden[packed.rows]),
            levels=self.model.lm_head(hidden[packed.level_rows]),
            options=self.option_head(middle[packed.option_rows])[:, 0],
            dense=self.head(features),
        )


class Losses:
    """The losses over packed answers: next tokens, soft numbers, soft levels."""

    def __init__(self, packer: Packer, vocabulary: int) -> None:
        numbers = packer.number_ids
        self._level_ids = packer.level_ids
        self._number_of = torch.full((vocabulary,), -1)
        self._number_of[numbers] = torch.arange(len(numbers))
        self._numbers = numbers

    def answers(self, logits: Tensor, packed: Packed) -> Tensor:
        """Weighted cross-entropy; a coordinate's neighbours share its probability.

        logits: [A, vocabulary]. Numbers are learnt as a bell `_NUMBER_SPREAD` thousandths wide:
        a box edge is never known to the thousandth.
        """
        log = logits.float().log_softmax(-1)
        exact = -log.gather(1, packed.targets[:, None])[:, 0]
        number = self._number_of[packed.targets]
        at = (number >= 0).nonzero()[:, 0]
        grid = torch.arange(len(self._numbers))
        bell = -((grid - number[at][:, None]) ** 2) / (2 * _NUMBER_SPREAD**2)
        soft = -(log[at[:, None], self._numbers] * bell.softmax(-1)).sum(-1)
        losses = exact.index_put((at,), soft)
        return (losses * packed.weights).sum() / packed.weights.sum()

    def levels(self, logits: Tensor, packed: Packed) -> Tensor:
        """Cross-entropy of the level words against their soft targets, over the vocabulary."""
        log = logits.float().log_softmax(-1)[:, self._level_ids]
        return -(packed.level_targets * log).sum(-1).mean()


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
    batches = 12
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


def _load_tower(student: Student, vision: Path) -> None:
    weights = torch.load(vision, weights_only=True)["average"]["weights"]
    tower = {k.removeprefix("tower."): v for k, v in weights.items() if k.startswith("tower.")}
    head = {k.removeprefix("head."): v for k, v in weights.items() if k.startswith("head.")}
    student.model.model.visual.load_state_dict(tower)
    student.head.load_state_dict(head)


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
    scored: ScoredBatches,
    checks: dict[str, Path],
    run: Path,
    minutes: float,
) -> None:
    """Train the whole model for so many minutes in all, from `run`/vision.pt or `run`/model.pt.

    Writes `model.pt` (weights, averaged weights, optimiser, progress) and a line a check to
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
        _load_tower(student, run / "vision.pt")
        average = Average(student)
    shadow = copy.deepcopy(student)
    random = Random(progress.step)
    opinions = _scored_packs(scored, packer)
    history: list[tuple[float, float]] = []
    for batch in Batches(pool, _PICTURE_BUDGET, seed=progress.step + 1):
        progress.set_rate(optimiser, peak=1e-3)
        packed = _pack(packer, batch, random)
        learn_to_see = progress.step % _SEE_EVERY == 0
        with torch.autocast("cpu", torch.bfloat16):
            outputs = student(batch.pixels, packed, learn_to_see)
        answer = losses.answers(outputs.answers, packed)
        right = nn_f.binary_cross_entropy_with_logits(outputs.options.float(), packed.option_right)
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
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        average.update(student)
        history.append((float(answer.detach()), float(right.detach())))
        if progress.advance(len(batch.records)) or progress.done:
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
