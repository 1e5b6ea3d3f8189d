"""What a tower says of each cell, and the truth of it."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer

from export.distortions.compose import Truth
from export.distortions.masks import coverage
from export.supervision.example import Example
from export.supervision.examples import score_example
from export.supervision.levels import pseudo_mos
from export.training.batched_vision import encode
from export.training.batches import Batches, normalise
from export.training.evidence import (
    EVIDENCE,
    CellAucs,
    cell_auc,
    evidence_loss,
    score_loss,
    score_told,
    told,
)
from export.training.known import (
    GRADES,
    box_grades,
    known_of,
    known_of_labelled,
    looks_of,
    scores_of,
)
from export.training.student import Student
from export.training.vision_stage import Witness
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


def test_auc_against_pair_counting() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, truth = torch.rand(80, generator=generator), torch.rand(80, generator=generator) < 0.3
    wins = (scores[truth][:, None] > scores[~truth][None]).double().mean()
    assert cell_auc(scores, truth) == pytest.approx(float(wins))


def test_scores_of_cells_are_those_of_all_batches_together(small_pool: Path) -> None:
    scores = CellAucs()
    said: list[tuple[torch.Tensor, torch.Tensor]] = []
    for number, batch in zip(range(3), Batches(small_pool, 1_000_000, seed=1), strict=False):
        generator = torch.Generator().manual_seed(number)
        evidence = told(known_of(batch), generator)
        evidence += 3 * torch.randn(evidence.shape, generator=generator)
        scores.add(evidence, batch)
        for kind in range(len(DISTORTIONS)):
            shown = batch.coverage[:, kind].flatten() > 0.5
            said.append((evidence[..., kind * len(SEVERITIES)].flatten(), shown))
    found = scores.by_name()
    mean = found.pop("mean")
    for kind, name in enumerate(DISTORTIONS):
        logits, shown = (
            torch.cat(parts) for parts in zip(*said[kind :: len(DISTORTIONS)], strict=True)
        )
        if shown.any():
            assert found[name] == pytest.approx(cell_auc(logits, shown), abs=1e-3)
        else:
            assert name not in found
    assert 0.6 < mean < 1
    assert mean == pytest.approx(sum(found.values()) / len(found), abs=1e-3)


def test_testimony_is_the_truth_with_errors(small_pool: Path) -> None:
    batch = next(iter(Batches(small_pool, 1_000_000, seed=1)))
    known = known_of(batch)
    heard = told(known, torch.Generator().manual_seed(3))
    again = told(known, torch.Generator().manual_seed(3))
    assert torch.equal(heard, again)
    scores, truth = heard[..., :GRADES].flatten(), known.grades.flatten() > 0.5
    assert 0.95 < cell_auc(scores, truth) < 1.0
    assert known.scores.tolist() == pytest.approx([pseudo_mos(r) for r in batch.records])
    assert 0 < float((score_told(heard) - known.scores).abs().mean()) < 1
    exact = told(known, torch.Generator(), doubtful=False)
    assert score_loss(exact, known.scores) < score_loss(heard, known.scores)
    right = torch.cat((torch.logit(known.grades, eps=1e-4), exact[..., GRADES:]), dim=-1)
    assert evidence_loss(right, known) < evidence_loss(heard, known)


def test_a_picture_without_a_score_teaches_none() -> None:
    asked = [[Example("question", "Yes.")], [score_example(2.0)]]
    scores = scores_of(asked)
    assert scores.isnan().tolist() == [True, False]
    assert float(scores[1]) == pytest.approx(2.0, abs=0.05)
    evidence = torch.zeros(2, 6, EVIDENCE, requires_grad=True)
    loss = score_loss(evidence, scores)
    loss.backward()
    assert evidence.grad is not None
    assert loss > 0
    assert not evidence.grad[0].any()
    assert evidence.grad[1, :, -1].all()
    assert not score_loss(evidence.detach(), scores[:1].expand(2))


def _drawn(truth: Truth) -> np.ndarray:
    """A mask of 1,000 x 1,000 px that is 1 inside the truth's box."""
    mask = Image.new("F", (1000, 1000))
    x1, y1, x2, y2 = truth.box
    ImageDraw.Draw(mask).rectangle((x1, y1, x2 - 1, y2 - 1), fill=1.0)
    return np.array(mask)


def test_grades_of_boxes_are_those_of_masks() -> None:
    truths = [
        Truth("Noise", "severe", (100, 0, 480, 550), 0.2, "as found"),
        Truth("Noise", "minor", (300, 200, 1000, 1000), 0.5, "as found"),
        Truth("Motion blur", "moderate", (0, 0, 1000, 1000), 1.0, "as found"),
    ]
    grades = box_grades(truths, 5, 8)
    severe, minor, whole = (
        coverage(torch.from_numpy(_drawn(truth)), 5, 8).flatten() for truth in truths
    )
    noise, blur = (len(SEVERITIES) * DISTORTIONS.index(kind) for kind in ("Noise", "Motion blur"))
    expected = {
        noise: torch.maximum(severe, minor),
        noise + 1: severe,
        noise + 2: severe,
        blur: whole,
        blur + 1: whole,
    }
    for grade, cells in enumerate(grades.T):
        assert torch.allclose(cells, expected.get(grade, torch.zeros(40)), atol=1e-5)


def test_a_picture_of_which_nobody_said_what_is_wrong_teaches_its_score_alone() -> None:
    pixels = torch.rand(3, 3, 56, 84, generator=torch.Generator().manual_seed(1))
    noise = Truth("Noise", "minor", (0, 0, 500, 1000), 0.5, "as found")
    known = known_of_labelled(pixels, [None, [noise], []], [[score_example(4.0)], [], []])
    assert known.grades[2].eq(0).all()
    evidence = torch.zeros(3, 6, EVIDENCE, requires_grad=True)
    evidence_loss(evidence, known).backward()
    assert evidence.grad is not None
    unlabelled, labelled, flawless = evidence.grad
    assert not unlabelled[:, :-1].any()
    assert unlabelled[:, -1].all()
    assert labelled[:, :GRADES].any(0).all()
    assert not labelled[:, -1].any()
    assert flawless[:, :GRADES].gt(0).all()
    alone = known_of_labelled(pixels[1:], [[noise], []], [[], []])
    loss = evidence_loss(torch.zeros(2, 6, EVIDENCE), alone)
    cells = evidence_loss(evidence, known) - score_loss(evidence, known.scores)
    assert float(loss) == pytest.approx(3 / 2 * cells.item())


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
