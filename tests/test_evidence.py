"""What a tower says of each cell, and the truth of it."""

from pathlib import Path

import pytest
import skimage.data
import torch
from tokenizers import Tokenizer

from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.training.batched_vision import encode
from export.training.batches import Batches, normalise
from export.training.evidence import (
    GRADES,
    cell_auc,
    evidence_loss,
    grade_targets,
    looks_of,
    told,
)
from export.training.student import Student
from export.training.vision_stage import Witness


def test_auc_against_pair_counting() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, truth = torch.rand(80, generator=generator), torch.rand(80, generator=generator) < 0.3
    wins = (scores[truth][:, None] > scores[~truth][None]).double().mean()
    assert cell_auc(scores, truth) == pytest.approx(float(wins))


def test_testimony_is_the_truth_with_errors(photo_folder: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photo_folder) if not p.scored]
    write_shard(pool, clean, photo_folder, seed=2, held_out=False)
    batch = next(iter(Batches(pool, 1_000_000, seed=1)))
    targets, looks = grade_targets(batch.coverage, batch.severity), looks_of(batch.pixels)
    heard = told(targets, looks, torch.Generator().manual_seed(3))
    again = told(targets, looks, torch.Generator().manual_seed(3))
    assert torch.equal(heard, again)
    scores, truth = heard[..., :GRADES].flatten(), targets.flatten() > 0.5
    assert 0.95 < cell_auc(scores, truth) < 1.0
    exact = torch.cat((torch.logit(targets, eps=1e-4), looks), dim=-1)
    assert evidence_loss(exact, targets, looks) < evidence_loss(heard, targets, looks)


def test_looks_are_the_means_of_cells() -> None:
    pixels = torch.zeros(1, 3, 56, 28)
    pixels[0, :, 28:] = 0.5
    looks = looks_of(pixels)
    assert looks.shape == (1, 2, 4)
    assert looks[0, :, 0].tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert looks[0, :, 1:3].abs().max() < 1e-4


@torch.no_grad()
def test_a_folded_tower_says_what_the_language_model_reads(
    tmp_path: Path, small_tokenizer: Tokenizer
) -> None:
    witness, student = Witness("nano"), Student("nano", small_tokenizer)
    torch.save({"average": {"weights": witness.state_dict()}}, tmp_path / "vision.pt")
    student.take_tower(tmp_path / "vision.pt")
    pixels = normalise(skimage.data.chelsea()[None, :224, :336].transpose(0, 3, 1, 2).copy())
    sight = student.see(pixels)
    assert torch.allclose(sight.evidence, witness(pixels), atol=1e-5)
    assert torch.allclose(sight.features, student.testify(sight.evidence), atol=1e-5)
    torch.nn.init.normal_(student.bypass.weight, std=0.02)
    features = student.see(pixels).features
    student.fold()
    folded = encode(student.model.model.visual, pixels)
    assert torch.allclose(folded, features, atol=1e-5)
