"""Stages of training: they run, resume, average and work in a team."""

import json
from itertools import count
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.supervision.examples import score_example
from export.supervision.labelled import Labelled
from export.training import team
from export.training.averaging import Average
from export.training.checkpoint import write_checkpoint
from export.training.course import Course
from export.training.language_stage import LANGUAGE, READING, train_language
from export.training.optimiser import Optimiser
from export.training.student import Student
from export.training.vision_stage import train_vision
from idetex_edge.prompts import PromptSet


def test_average_follows_the_weights() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, decay=0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
    for _ in range(60):
        average.update(module)
    assert torch.allclose(average.weights["weight"], module.weight, atol=1e-3)


def test_stages_run_resume_and_make_a_loadable_checkpoint(
    photo_folder: Path, tmp_path: Path, small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    listed = list_photos(photo_folder)
    pool = tmp_path / "pool"
    for seed in (2, 3):
        write_shard(pool, [p for p in listed if not p.scored], photo_folder, seed, held_out=False)
    run = tmp_path / "run"
    moment = 1e-4
    train_vision("nano", pool, {}, run, moment)
    scored = [
        Labelled(photo.path, (score_example(mos),))
        for photo, mos in zip([p for p in listed if p.scored], (3.0, 4.0), strict=True)
    ]
    real = scored * 2
    for stage in (READING, LANGUAGE):
        for _ in range(2):
            train_language(
                stage, "nano", small_tokenizer, nano_prompts, pool, real, scored, {}, run, moment
            )
        written = (run / f"{stage.name}.jsonl").read_text()
        lines = [json.loads(line) for line in written.splitlines()]
        assert lines[-1]["step"] == len(lines) == 2
    assert set(lines[-1]["checks"]["people"]) == {"srcc", "plcc"}
    output = tmp_path / "checkpoint"
    write_checkpoint("nano", small_tokenizer, nano_prompts, run / "model.pt", output)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(output)
    saved = torch.load(run / "model.pt", weights_only=True)["average"]["weights"]
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(dict(model.named_parameters())[name], saved[f"model.{name}"])
    assert PromptSet.from_dict(json.loads((output / "prompts.json").read_text())) == nano_prompts
    taught = tmp_path / "taught"
    taught.mkdir()
    train_vision("nano", pool, {}, taught, moment, taught_by=output)
    (line,) = (taught / "vision.jsonl").read_text().splitlines()
    assert 0 < json.loads(line)["features"] < 2
    (taught / "reading.pt").write_bytes((run / "reading.pt").read_bytes())
    train_language(
        LANGUAGE,
        "nano",
        small_tokenizer,
        nano_prompts,
        pool,
        real,
        [],
        {},
        taught,
        moment,
        taught_by=output,
    )
    write_checkpoint("nano", small_tokenizer, nano_prompts, taught / "model.pt", tmp_path / "pupil")
    (line,) = (taught / "model.jsonl").read_text().splitlines()
    assert {"logits", "features"} <= set(json.loads(line))
    assert not {"logits", "features"} & set(lines[-1])
    further = tmp_path / "further"
    further.mkdir()
    train_vision("nano", pool, {}, further, moment, start=output)
    train_language(
        READING,
        "nano",
        small_tokenizer,
        nano_prompts,
        pool,
        real,
        [],
        {},
        further,
        moment,
        start=output,
    )
    moved = torch.load(further / "reading.pt", weights_only=True)["model"][f"model.{name}"]
    assert torch.allclose(moved, saved[f"model.{name}"], atol=1e-3)
    tower = torch.load(further / "vision.pt", weights_only=True)["model"]
    name = "blocks.0.attn.qkv.weight"
    assert torch.allclose(tower[f"tower.{name}"], saved[f"model.model.visual.{name}"], atol=1e-3)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    photo_folder: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = tmp_path / "pool"
    clean = [p for p in list_photos(photo_folder) if not p.scored]
    write_shard(pool, clean, photo_folder, seed=2, held_out=False)
    seconds = count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    weights: list[dict[str, Tensor]] = []
    for stops in ((4,), (2, 4)):
        run = tmp_path / str(len(stops))
        for steps in stops:
            monkeypatch.setattr(Course, "done", property(lambda c, n=steps: c.step >= n))
            train_language(
                READING, "nano", small_tokenizer, nano_prompts, pool, [], [], {}, run, minutes=1
            )
        saved = torch.load(run / "reading.pt", weights_only=True)
        assert (saved["step"], saved["seconds"]) == (4, 4.0)
        weights.append(saved["model"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_matrices_go_to_muon_and_all_else_to_adam(small_tokenizer: Tokenizer) -> None:
    student = Student("nano", small_tokenizer)
    text = student.model.model.language_model
    before = {name: value.clone() for name, value in text.state_dict().items()}
    optimiser = Optimiser({"text": (text, 0.5)})
    for parameter in text.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step(1e-3)
    after = text.state_dict()
    assert all(parameter.grad is None for parameter in text.parameters())
    moved = after["embed_tokens.weight"] - before["embed_tokens.weight"]
    assert torch.allclose(moved.abs(), torch.full_like(moved, 5e-4), rtol=0.05, atol=1e-6)
    name = "layers.0.mlp.up_proj.weight"
    change = after[name] - before[name]
    singular = torch.linalg.svdvals(change)
    assert singular.max() / singular.min() < 3


def _average_in_team(folder: Path) -> None:
    module = torch.nn.Linear(2, 1)
    number = float(team.rank() + 1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, number)
    seconds = team.average_gradients(module, 10 * number)
    means = {float(value) for p in module.parameters() for value in p.grad.flatten()}  # type: ignore[union-attr]
    (folder / str(team.rank())).write_text(json.dumps([sorted(means), seconds]))


def test_a_team_averages_its_gradients_and_clocks(tmp_path: Path) -> None:
    team.train_together(2, _average_in_team, tmp_path)
    for member in range(2):
        assert json.loads((tmp_path / str(member)).read_text()) == [[1.5], 15.0]
    assert team.average_gradients(torch.nn.Linear(1, 1), 3.0) == 3.0
