"""Stage one: the vision tower alone learns to see distortions, from dense labels."""

import copy
import json
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from export.student.architecture import PRESETS, configure, create
from export.training.averaging import Average
from export.training.batched_vision import encode
from export.training.batches import Batches
from export.training.dense_head import DenseHead, cell_auc, dense_loss, dense_targets
from export.training.progress import Progress, save_atomically
from idetex_edge.vocabulary import DISTORTIONS

_PLACEHOLDER_IDS = {
    name: index
    for index, name in enumerate(
        (
            "<|im_end|>",
            "<|endoftext|>",
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_start|>",
            "<|vision_end|>",
        )
    )
}


class DenseTower(nn.Module):
    """A preset's vision tower with the dense head on top."""

    def __init__(self, preset: str) -> None:
        super().__init__()
        sizes = PRESETS[preset]
        self.tower = create(configure(sizes, _PLACEHOLDER_IDS, 64)).model.visual
        self.head = DenseHead(sizes.text_width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Dense logits [B, cells, 10, 3] of normalised pixels [B, 3, H, W]."""
        return self.head(encode(self.tower, pixels))


@torch.no_grad()
def cell_scores(model: DenseTower, pool: Path, batches: int = 12) -> dict[str, float]:
    """Per-cell AUC of each distortion, and their mean, over a fixed draw from a pool."""
    scores: list[Tensor] = []
    truths: list[Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        for batch in islice(Batches(pool, 1_500_000, seed=7), batches):
            scores.append(model(batch.pixels).float()[..., 0].flatten(0, 1))
            truths.append(batch.coverage.flatten(2).transpose(1, 2).flatten(0, 1) > 0.5)
    flat, truth = torch.cat(scores), torch.cat(truths)
    result = {
        name: round(cell_auc(flat[:, kind], truth[:, kind]), 3)
        for kind, name in enumerate(DISTORTIONS)
    }
    result["mean"] = round(sum(result.values()) / len(result), 3)
    return result


def train_vision(
    preset: str, pool: Path, checks: dict[str, Path], run: Path, minutes: float
) -> None:
    """Train a preset's tower on a pool for so many minutes in all; resumes from `run`.

    `checks` names the pools to validate on. Writes `vision.pt` (weights, averaged weights,
    optimiser, progress) and a line a check to `vision.jsonl`.
    """
    run.mkdir(parents=True, exist_ok=True)
    model = DenseTower(preset)
    shadow = copy.deepcopy(model)
    average = Average(model)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    progress = Progress(minutes)
    saved = run / "vision.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.load(state["average"])
        progress.load(state["progress"])
    losses: list[float] = []
    for batch in Batches(pool, 2_200_000, seed=progress.step):
        progress.set_rate(optimiser, peak=1.2e-3)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.pixels)
        loss = dense_loss(logits, dense_targets(batch.coverage, batch.severity))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        losses.append(float(loss.detach()))
        if progress.advance(len(batch.records)) or progress.done:
            shadow.load_state_dict(average.weights)
            scores = {name: cell_scores(shadow, path) for name, path in checks.items()}
            mean = round(sum(losses) / len(losses), 4)
            losses.clear()
            line = {**progress.state(), "loss": mean, "auc": scores}
            with (run / "vision.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            save_atomically(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": average.state(),
                    "progress": progress.state(),
                },
                saved,
            )
        if progress.done:
            return
