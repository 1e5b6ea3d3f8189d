"""What a teacher of the same vocabulary teaches."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from export.pool.shards import shard_folders
from export.student.tokenizer import train_tokenizer, write_tokenizer
from export.supervision.example import Example
from export.supervision.examples import score_example
from export.training.batched_language import Trace
from export.training.batches import Batch, Batches
from export.training.packing import Packed, Packer
from export.training.student import Outputs, Student
from export.training.teaching import Taught, Teacher, TowerTeacher, apart, lessons
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet


@pytest.fixture(scope="module")
def batch(small_pool: Path) -> Batch:
    """Some spoiled pictures of one size."""
    return next(iter(Batches(small_pool, 100_000, seed=1)))


@pytest.fixture(scope="module")
def packed(batch: Batch, small_tokenizer: Tokenizer, nano_prompts: PromptSet) -> Packed:
    """Two tasks asked of each of them."""
    height, width = batch.pixels.shape[-2:]
    examples = [[Example("grounding", "No distortion"), score_example(2.0)]] * len(batch.records)
    return Packer(small_tokenizer, nano_prompts).pack(examples, height // 28, width // 28)


@pytest.fixture(scope="module")
def said(batch: Batch, packed: Packed, small_tokenizer: Tokenizer) -> Outputs:
    """What a fresh student says to it, and where it looks."""
    learner = Student("nano", small_tokenizer)
    with torch.no_grad():
        return learner(learner.see(batch.pixels).features, packed, told=True)


def _other_student(tokenizer: Tokenizer, teacher_width: int = 0) -> Student:
    """A student that is not the teacher's twin: fresh weights are always the same."""
    student = Student("nano", tokenizer, teacher_width)
    torch.nn.init.normal_(student.model.lm_head.weight, std=0.05)
    return student


def test_a_student_nears_its_teacher(
    fresh_checkpoint: Path,
    small_pool: Path,
    batch: Batch,
    packed: Packed,
    small_tokenizer: Tokenizer,
) -> None:
    """Only the teacher's share of the loss is followed here; every part of it must fall."""
    teacher = Teacher(fresh_checkpoint, small_tokenizer, small_pool)
    taught = teacher(batch.pixels, packed)
    learner = _other_student(small_tokenizer, teacher.width)
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    sight = learner.see(batch.pixels)
    for _ in range(12):
        parts = lessons(learner(sight.features, packed, told=True), taught, packed)
        assert learner.imitate is not None
        parts["features"] = apart(learner.imitate(sight.seen), taught.seen)
        history.append({name: float(part.detach()) for name, part in parts.items()})
        optimiser.zero_grad()
        sum(parts.values(), torch.zeros(())).backward()
        optimiser.step()
        sight = learner.see(batch.pixels)
    assert set(history[0]) == {"logits", "attention", "features"}
    assert all(last < 0.7 * history[0][name] for name, last in history[-1].items())


def test_who_says_and_looks_the_same_is_no_way_off(
    fresh_checkpoint: Path,
    small_pool: Path,
    batch: Batch,
    packed: Packed,
    small_tokenizer: Tokenizer,
) -> None:
    teacher = Teacher(fresh_checkpoint, small_tokenizer, small_pool)
    taught = teacher(batch.pixels, packed)
    learner = _other_student(small_tokenizer)
    said = learner(learner.see(batch.pixels).features, packed, told=True)
    other = lessons(said, taught, packed)
    assert float(other["attention"].detach()) > 1e-3
    trace = replace(said.trace, attention=taught.attention)
    said = replace(said, answers=taught.answers, levels=taught.levels, trace=trace)
    same = lessons(said, taught, packed)
    assert {name: float(part.detach()) for name, part in same.items()} == pytest.approx(
        {"logits": 0.0, "attention": 0.0}, abs=1e-5
    )


def test_features_are_taught_without_what_all_cells_share(
    fresh_checkpoint: Path, small_pool: Path, batch: Batch
) -> None:
    teacher = TowerTeacher(fresh_checkpoint, small_pool)
    seen = teacher.see(batch.pixels)
    assert seen.shape[-1] == teacher.width
    shared = seen.mean((0, 1)).expand_as(seen)
    assert float(apart(shared, seen)) > 0.5


def test_a_pool_that_grows_does_not_change_what_is_taught(
    fresh_checkpoint: Path, small_pool: Path, batch: Batch, tmp_path: Path
) -> None:
    (shard,) = shard_folders(small_pool)
    for seed in range(12):
        (tmp_path / f"{seed:06d}_x").symlink_to(shard)
    before = TowerTeacher(fresh_checkpoint, tmp_path).see(batch.pixels)
    grown = Path(shutil.copytree(shard, tmp_path / "000099_x"))
    images = np.load(grown / "images.npy")
    np.save(grown / "images.npy", 255 - images)
    assert torch.equal(TowerTeacher(fresh_checkpoint, tmp_path).see(batch.pixels), before)


def test_where_a_student_never_looks_it_can_be_shown_to(packed: Packed) -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    hidden = torch.zeros(0, 4)
    trace = Trace(hidden, hidden, hidden, (), (), ((logits.softmax(-1),),))
    nothing = torch.zeros(len(packed.rows), 4)
    levels = torch.zeros(len(packed.level_rows), 4)
    said = Outputs(nothing, levels, hidden, hidden, trace)
    shown = Taught(nothing, levels, ((torch.tensor([[0.0, 1.0, 0.0]]),),), hidden)
    single = replace(packed.blocks[0], used=torch.tensor([True]))
    lessons(said, shown, replace(packed, blocks=(single,)))["attention"].backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=1e-3)


def test_where_padding_looks_is_nobodys_lesson(said: Outputs, packed: Packed) -> None:
    ours = said.trace.attention

    def differing(block: int, where: torch.Tensor) -> float:
        """How far the student is from a teacher that looks elsewhere from some of its tokens."""
        shown = [list(layer) for layer in ours]
        for layer in shown:
            layer[block] = layer[block].clone()
            layer[block][where] = layer[block][where].flip(-1)
        attention = tuple(map(tuple, shown))
        taught = Taught(said.answers, said.levels, attention, torch.zeros(()))
        return float(lessons(said, taught, packed)["attention"])

    last = len(packed.blocks) - 1
    padding = ~packed.blocks[last].used
    assert 0 < int(padding.sum()) < padding.numel()
    assert differing(last, padding) == pytest.approx(0.0, abs=1e-5)
    assert differing(last, ~padding) > 1e-3


def test_a_deeper_teacher_shows_the_layer_at_the_same_depth(said: Outputs, packed: Packed) -> None:
    ours = said.trace.attention
    elsewhere = tuple(attention.flip(-1) for attention in ours[0])
    places = [0, 0, 0, 1, 1, 1]
    deeper = tuple(layer for own in ours for layer in (elsewhere, own))
    taught = Taught(said.answers, said.levels, deeper, torch.zeros(()))
    assert float(lessons(said, taught, packed)["attention"]) == pytest.approx(0.0, abs=1e-5)
    shallower = Taught(said.answers, said.levels, (ours[2], ours[5]), torch.zeros(()))
    found = lessons(said, shallower, packed)["attention"]
    shown = tuple((ours[2], ours[5])[place] for place in places)
    same = Taught(said.answers, said.levels, shown, torch.zeros(()))
    assert float(found) == pytest.approx(float(lessons(said, same, packed)["attention"]))


def test_a_teacher_of_another_vocabulary_is_refused(
    tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    with pytest.raises(ExportError, match="no tokenizer"):
        Teacher(tmp_path, small_tokenizer, tmp_path)
    other = train_tokenizer(["entirely other words"], words=20)
    write_tokenizer(other, tmp_path)
    with pytest.raises(ExportError, match=r"another vocabulary.*label"):
        Teacher(tmp_path, small_tokenizer, tmp_path)
