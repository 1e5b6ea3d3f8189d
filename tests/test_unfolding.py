"""What was folded into a checkpoint is found again."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.training.batches import Batches
from export.training.checkpoint import write_checkpoint
from export.training.evidence import GRADES, looks_of
from export.training.student import Student
from export.training.unfolding import unfold, write_start
from idetex_edge.prompts import PromptSet


@pytest.fixture(scope="module")
def pool(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    clean = [p for p in list_photos(photo_folder) if not p.scored]
    write_shard(folder, clean, photo_folder, seed=2, held_out=False)
    return folder


def test_a_folded_student_is_unfolded_into_one_that_sees_the_same(
    pool: Path, small_tokenizer: Tokenizer
) -> None:
    student = Student("nano", small_tokenizer)
    unfold(student, pool, batches=3, steps=300)
    generator = torch.Generator().manual_seed(4)
    testify = student.testify
    batch = next(iter(Batches(pool, 150_000, seed=9)))
    with torch.no_grad():
        testify.weight.copy_(torch.randn(testify.weight.shape, generator=generator))
        testify.bias.copy_(torch.randn(testify.bias.shape, generator=generator))
        before = student.see(batch.pixels)
        student.fold()
    for head in (student.witness, testify, student.bypass):
        torch.nn.init.normal_(head.weight)
    explained = unfold(student, pool, batches=3, steps=300)
    with torch.no_grad():
        after = student.see(batch.pixels)
    assert explained > 0.99
    lost = after.features - before.features
    assert float(lost.norm() / (before.features - before.features.mean()).norm()) < 0.1
    assert not student.bypass.weight.any()


def test_the_witness_tells_the_truth(pool: Path, small_tokenizer: Tokenizer) -> None:
    """How light a cell is: fresh features show even that; the mean alone has an error of 1."""
    student = Student("nano", small_tokenizer)
    unfold(student, pool, batches=3, steps=300)
    batch = next(iter(Batches(pool, 150_000, seed=9)))
    with torch.no_grad():
        told = student.see(batch.pixels).evidence[..., GRADES]
    luma = looks_of(batch.pixels)[..., 0]
    error = (told - luma).square().mean() / (luma - luma.mean()).square().mean()
    assert float(error) < 0.5


def test_a_start_that_was_cut_short_is_not_taken_for_one(
    pool: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = Student("nano", small_tokenizer)
    torch.save({"average": {"weights": student.state_dict()}}, tmp_path / "model.pt")
    folder, start = tmp_path / "checkpoint", tmp_path / "start.pt"
    write_checkpoint("nano", small_tokenizer, nano_prompts, tmp_path / "model.pt", folder)

    def cut(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    wanted = ("nano", small_tokenizer, folder, pool, start, 1, 5)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            write_start(*wanted)
    assert not start.exists()
    assert 0 < write_start(*wanted) <= 1
    student.take_start(start)


def test_a_larger_preset_starts_as_the_smaller_one_grown(
    pool: Path, tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    torch.save(
        {"average": {"weights": Student("nano", small_tokenizer).state_dict()}}, tmp_path / "m"
    )
    folder, start = tmp_path / "checkpoint", tmp_path / "start.pt"
    write_checkpoint("nano", small_tokenizer, nano_prompts, tmp_path / "m", folder)
    write_start("mini", small_tokenizer, folder, pool, start, 1, 5)
    grown = Student("mini", small_tokenizer)
    grown.take_start(start)
    small = Student("nano", small_tokenizer)
    small.load_checkpoint(folder)
    batch = next(iter(Batches(pool, 60_000, seed=9)))
    with torch.no_grad():
        ours, theirs = (s.see(batch.pixels).seen for s in (small, grown))
    assert torch.allclose(theirs, ours.repeat(1, 1, 2), atol=1e-3)
