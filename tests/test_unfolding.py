"""What was folded into a checkpoint is found again."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from export.training.batches import Batches
from export.training.checkpoint import write_checkpoint
from export.training.evidence import EVIDENCE
from export.training.known import GRADES, looks_of
from export.training.student import Student
from export.training.unfolding import unfold, whitening, write_start
from idetex_edge.prompts import PromptSet


def _with_testimony(tokenizer: Tokenizer, pool: Path) -> Student:
    """A student that gives evidence, as well as a fresh tower can, and tells it at random."""
    student = Student("nano", tokenizer)
    unfold(student, pool, batches=3, steps=300)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for part in student.testify.parameters():
            part.copy_(torch.randn(part.shape, generator=generator))
    return student


def _lost(found: Tensor, wanted: Tensor) -> float:
    """How far features are from those wanted, beside how much those vary."""
    return float((found - wanted).norm() / (wanted - wanted.mean((0, 1))).norm())


def test_a_folded_student_is_unfolded_into_one_that_sees_the_same(
    small_pool: Path, small_tokenizer: Tokenizer
) -> None:
    student = _with_testimony(small_tokenizer, small_pool)
    batch = next(iter(Batches(small_pool, 150_000, seed=9)))
    with torch.no_grad():
        before = student.see(batch.pixels)
        student.fold()
    for head in (student.witness, student.testify, student.bypass):
        torch.nn.init.normal_(head.weight)
    explained = unfold(student, small_pool, batches=3, steps=300)
    with torch.no_grad():
        after = student.see(batch.pixels)
    assert explained > 0.99
    assert _lost(after.features, before.features) < 0.1
    assert not student.bypass.weight.any()


def test_a_tower_unfolded_gives_evidence_in_weights_like_fresh_ones(
    small_pool: Path, small_tokenizer: Tokenizer
) -> None:
    student = Student("nano", small_tokenizer)
    with torch.no_grad():
        student.merger_output.weight.mul_(1e-2)
    unfold(student, small_pool, batches=1, steps=20)
    told = student.witness.weight
    assert torch.equal(told[:, :EVIDENCE], told[:, :EVIDENCE].diagonal().diag())
    assert not told[:, EVIDENCE:].any()
    norms = student.merger_output.weight.norm(dim=1)
    assert torch.allclose(norms[:EVIDENCE], norms[EVIDENCE:].mean(), rtol=0.2)


def test_weak_directions_of_features_are_read_too() -> None:
    generator = torch.Generator().manual_seed(5)
    independent = torch.randn(2_000, 2, generator=generator)
    mixed = independent * torch.tensor([1.0, 0.01]) @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    centre, directions = whitening(mixed + 3)
    white = (mixed + 3 - centre) @ directions
    assert torch.allclose(white.T.cov(), torch.eye(2), atol=1e-3)
    constant = torch.cat((mixed, torch.ones(2_000, 1)), dim=1)
    assert whitening(constant)[1].shape == (3, 2)


def test_the_witness_tells_the_truth(small_pool: Path, small_tokenizer: Tokenizer) -> None:
    """How light a cell is: fresh features show even that; the mean alone has an error of 1."""
    student = Student("nano", small_tokenizer)
    unfold(student, small_pool, batches=3, steps=300)
    batch = next(iter(Batches(small_pool, 150_000, seed=9)))
    with torch.no_grad():
        told = student.see(batch.pixels).evidence[..., GRADES]
    luma = looks_of(batch.pixels)[..., 0]
    error = (told - luma).square().mean() / (luma - luma.mean()).square().mean()
    assert float(error) < 0.5


def test_a_start_that_was_cut_short_is_not_taken_for_one(
    small_pool: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    fresh_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = tmp_path / "start.pt"

    def cut(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    wanted = ("nano", small_tokenizer, fresh_checkpoint, small_pool, start, 1, 5)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            write_start(*wanted)
    assert not start.exists()
    assert 0 < write_start(*wanted) <= 1
    Student("nano", small_tokenizer).take_start(start)
    Student("nano", small_tokenizer, teacher_width=8).take_start(start)


def test_a_larger_preset_starts_as_the_smaller_one_grown(
    small_pool: Path, tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    taught, folder, start = (
        _with_testimony(small_tokenizer, small_pool),
        tmp_path / "folder",
        tmp_path / "start",
    )
    torch.save({"average": {"weights": taught.state_dict()}}, tmp_path / "model.pt")
    write_checkpoint("nano", small_tokenizer, nano_prompts, tmp_path / "model.pt", folder)
    write_start("mini", small_tokenizer, folder, small_pool, start, 3, 300)
    grown, small = (Student(preset, small_tokenizer) for preset in ("mini", "nano"))
    grown.take_start(start)
    small.load_checkpoint(folder)
    batch = next(iter(Batches(small_pool, 60_000, seed=9)))
    with torch.no_grad():
        ours, theirs = small.see(batch.pixels).seen, grown.see(batch.pixels).features
    assert _lost(theirs, ours.repeat(1, 1, 2)) < 0.1
