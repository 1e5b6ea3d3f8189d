"""What a teacher of the same vocabulary teaches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.student.tokenizer import train_tokenizer, write_tokenizer
from export.supervision.example import Example
from export.supervision.examples import score_example
from export.training.batches import Batches
from export.training.checkpoint import write_checkpoint
from export.training.packing import Packer
from export.training.student import Student
from export.training.teaching import Teacher, lessons
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet


def test_a_student_nears_its_teacher(
    photo_folder: Path, tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    """Only the teacher's share of the loss is followed here; both parts of it must fall."""
    torch.manual_seed(1)
    taught_by = tmp_path / "teacher"
    student = Student("nano", small_tokenizer)
    torch.save({"average": {"weights": student.state_dict()}}, tmp_path / "model.pt")
    write_checkpoint("nano", small_tokenizer, nano_prompts, tmp_path / "model.pt", taught_by)
    teacher = Teacher(taught_by, small_tokenizer)
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photo_folder) if not p.scored]
    write_shard(pool, clean, photo_folder, seed=2, held_out=False)
    batch = next(iter(Batches(pool, 100_000, seed=1)))
    height, width = batch.pixels.shape[-2:]
    examples = [[Example("grounding", "No distortion"), score_example(2.0)]] * len(batch.records)
    packed = Packer(small_tokenizer, nano_prompts).pack(examples, height // 28, width // 28)
    taught = teacher(batch.pixels, packed)
    learner = Student("nano", small_tokenizer, teacher.width)
    torch.nn.init.normal_(learner.model.lm_head.weight, std=0.05)
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-3)
    history: list[dict[str, float]] = []
    sight = learner.see(batch.pixels)
    for _ in range(12):
        parts = lessons(learner, sight, learner(sight.features, packed), taught, packed)
        history.append({name: float(part.detach()) for name, part in parts.items()})
        optimiser.zero_grad()
        sum(parts.values(), torch.zeros(())).backward()
        optimiser.step()
        sight = learner.see(batch.pixels)
    assert all(history[-1][name] < 0.7 * history[0][name] for name in ("logits", "features"))
    said = replace(learner(sight.features, packed), answers=taught.answers, levels=taught.levels)
    same = lessons(learner, sight, said, taught, packed)
    assert float(same["logits"]) == pytest.approx(0.0, abs=1e-5)


def test_a_teacher_of_another_vocabulary_is_refused(
    tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    with pytest.raises(ExportError, match="no tokenizer"):
        Teacher(tmp_path, small_tokenizer)
    other = train_tokenizer(["entirely other words"], words=20)
    write_tokenizer(other, tmp_path)
    with pytest.raises(ExportError, match=r"another vocabulary.*label"):
        Teacher(tmp_path, small_tokenizer)
