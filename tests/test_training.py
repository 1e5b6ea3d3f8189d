"""Stages of training: they run, resume, and learn from what they are given."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from export.distortions.compose import Truth
from export.pool.photos import list_photos
from export.pool.shards import write_shard
from export.recipe import recipe_without
from export.supervision.examples import score_example
from export.supervision.labelled import Labelled
from export.training import checking, vision_stage
from export.training.checking import Judge, agreement
from export.training.checkpoint import write_checkpoint
from export.training.course import Course
from export.training.evidence import evidence_loss
from export.training.known import Known, scores_of
from export.training.language_stage import train_language
from export.training.losses import Losses
from export.training.packing import Packer
from export.training.stages import LANGUAGE, READING, Material
from export.training.student import Student
from export.training.unfolding import write_start
from export.training.vision_stage import train_vision
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

_MOMENT = 1e-4
"""Minutes, of which the first step takes more."""


@dataclass(frozen=True)
class Trained:
    """A run of all stages of nano, a step or two each, and its checkpoint."""

    run: Path
    material: Material
    checkpoint: Path


@pytest.fixture(scope="module")
def trained(
    photo_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
) -> Trained:
    run = tmp_path_factory.mktemp("run")
    listed = list_photos(photo_folder)
    pool = run / "pool"
    for seed in (2, 3):
        write_shard(pool, [p for p in listed if not p.scored], photo_folder, seed, held_out=False)
    scored = [
        Labelled(photo.path, (score_example(mos),))
        for photo, mos in zip([p for p in listed if p.scored], (3.0, 4.0), strict=True)
    ]
    material = Material(small_tokenizer, nano_prompts, pool, scored * 2, {}, scored)
    train_vision("nano", material, run, _MOMENT)
    for stage in (READING, LANGUAGE):
        for _ in range(2):
            train_language(stage, "nano", material, run, _MOMENT)
    write_checkpoint("nano", small_tokenizer, nano_prompts, run / "model.pt", run / "checkpoint")
    return Trained(run, material, run / "checkpoint")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As training processes have (`team.settle`): two share float32 sums in no fixed order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _tensors(path: Path, kind: str = "model") -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    return state["average"]["weights"] if kind == "average" else state[kind]


@pytest.mark.usefixtures("one_thread")
def test_the_tower_learns_what_people_score(trained: Trained, tmp_path: Path) -> None:
    parts: dict[str, list[str]] = {"whole": [], "spoiled": ["photographs"]}
    for name, without in parts.items():
        recipe = recipe_without(without)
        train_vision("nano", trained.material, tmp_path / name, _MOMENT, recipe=recipe)
    ((whole,), (spoiled,)) = (_lines(tmp_path / name / "vision.jsonl") for name in parts)
    assert set(whole["checks"]["people"]) == {"srcc", "plcc"}
    assert whole["scores"] > 0
    assert "scores" not in spoiled
    assert whole["loss"] == spoiled["loss"]
    quality, other = (_tensors(tmp_path / name / "vision.pt")["head.weight"][-1] for name in parts)
    assert not torch.equal(quality, other)


def test_a_second_member_of_the_towers_team_looks_at_other_pictures_and_writes_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[list[object]] = []

    def noting(draws: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: object) -> object:
            seeds[-1].append(args[2])
            return draws(*args)

        return draw

    monkeypatch.setattr(vision_stage, "Batches", noting(vision_stage.Batches))
    monkeypatch.setattr(vision_stage, "RealBatches", noting(vision_stage.RealBatches))
    for member in range(2):
        monkeypatch.setattr(vision_stage, "rank", lambda member=member: member)
        seeds.append([])
        train_vision("nano", trained.material, tmp_path / str(member), _MOMENT)
    first, second = map(set, seeds)
    assert len(first) == len(second) == 3
    assert not first & second
    assert list((tmp_path / "1").iterdir()) == []
    assert (tmp_path / "0" / "vision.pt").exists()


def test_stages_run_and_once_done_not_again(trained: Trained) -> None:
    for stage in (READING, LANGUAGE):
        (line,) = _lines(trained.run / f"{stage.name}.jsonl")
        assert line["step"] == 1
    assert not {"logits", "attention", "features"} & set(line)


def test_only_a_stage_that_sees_is_checked_for_what_its_tower_says(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_BATCHES", 2)
    tokenizer = trained.material.tokenizer
    student = Student("nano", tokenizer)
    packer = Packer(tokenizer, trained.material.prompts)
    losses = Losses(packer, tokenizer.get_vocab_size())
    for stage in (READING, LANGUAGE):
        figures = checking.check(student, stage, packer, losses, trained.material.pool)
        assert set(figures) - {"cells"} == {"loss", "token", "choice", "box"}
        assert ("cells" in figures) == stage.sees
    assert 0.3 < figures["cells"] < 0.7


def test_agreement_with_people(trained: Trained) -> None:
    def as_people(_: Tensor, picture: Labelled) -> Tensor:
        return scores_of([picture.examples]) / 2

    def against(pixels: Tensor, picture: Labelled) -> Tensor:
        return -as_people(pixels, picture)

    def alike(*_: object) -> Tensor:
        return torch.ones(1)

    scored = trained.material.scored
    assert agreement(as_people, scored)["people"] == {"srcc": 1, "plcc": pytest.approx(1)}
    assert agreement(against, scored)["people"]["srcc"] == -1
    assert agreement(alike, scored) == {}


def test_what_a_model_says_is_held_against_people(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("reading.pt", "vision.pt"):
        (tmp_path / name).symlink_to(trained.run / name)

    def judged(judge: Judge, scored: Sequence[Labelled]) -> dict[str, dict[str, float]]:
        assert list(scored) == list(trained.material.scored)
        with torch.no_grad():
            return {"people": {"score": float(judge(torch.zeros(1, 3, 56, 84), scored[0]))}}

    monkeypatch.setattr("export.training.language_stage.agreement", judged)
    train_language(LANGUAGE, "nano", trained.material, tmp_path, _MOMENT)
    (line,) = _lines(tmp_path / "model.jsonl")
    assert 1 <= line["checks"]["people"]["score"] <= 5


def test_scores_of_photographs_reach_the_evidence(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("reading.pt", "vision.pt"):
        (tmp_path / name).symlink_to(trained.run / name)
    heard: list[float] = []

    def listen(evidence: Tensor, known: Known) -> Tensor:
        if known.grades.isnan().all():
            heard.extend(known.scores.tolist())
        return evidence_loss(evidence, known)

    monkeypatch.setattr("export.training.language_stage.evidence_loss", listen)
    train_language(LANGUAGE, "nano", trained.material, tmp_path, _MOMENT)
    assert heard
    assert {round(score) for score in heard} <= {3, 4}


@pytest.mark.usefixtures("one_thread")
def test_labelled_boxes_teach_the_tower(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (picture, *_) = trained.material.scored
    truth = Truth("Noise", "severe", (0, 0, 500, 1000), 0.5, "as found")
    material = replace(trained.material, labelled=[replace(picture, truths=(truth,))])
    noise = DISTORTIONS.index("Noise") * len(SEVERITIES)
    halves: list[bool] = []

    def learn(evidence: Tensor, known: Known) -> Tensor:
        severe = known.grades[..., noise + 2].mean(1)
        halves.append(len(severe) == 1 and float(severe) == pytest.approx(0.5))
        return evidence_loss(evidence, known)

    monkeypatch.setattr(vision_stage, "evidence_loss", learn)
    monkeypatch.setattr(vision_stage, "_PIXELS", 100_000)
    recipes = [recipe_without(without) for without in ([], ["labels"])]
    for number, recipe in enumerate(recipes):
        ticks = count(step=1.0)
        run = tmp_path / f"vision {number}"
        train_vision("nano", material, run, 4 / 60, recipe=recipe, clock=ticks.__next__)
    assert halves == [False, True, False, True, False, False, False, False]
    halves.clear()
    monkeypatch.setattr("export.training.language_stage.evidence_loss", learn)
    joined = replace(material, real=())
    for number, recipe in enumerate(recipes):
        run = tmp_path / f"joined {number}"
        run.mkdir()
        for name in ("reading.pt", "vision.pt"):
            (run / name).symlink_to(trained.run / name)
        train_language(LANGUAGE, "nano", joined, run, _MOMENT, recipe=recipe)
    assert halves == [False, True, False]


def test_a_run_makes_a_loadable_checkpoint(trained: Trained) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(trained.checkpoint)
    averaged = _tensors(trained.run / "model.pt", "average")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(dict(model.named_parameters())[name], averaged[f"model.{name}"])
    prompts = json.loads((trained.checkpoint / "prompts.json").read_text())
    assert PromptSet.from_dict(prompts) == trained.material.prompts


def test_pointing_is_a_part_that_can_be_left_out(trained: Trained, tmp_path: Path) -> None:
    (first, *_) = _lines(trained.run / "reading.jsonl")
    assert {"places", "pointing"} <= set(first)
    recipe = recipe_without(["pointing"])
    train_language(READING, "nano", trained.material, tmp_path, _MOMENT, recipe=recipe)
    (line,) = _lines(tmp_path / "reading.jsonl")
    assert not {"places", "pointing"} & set(line)


def test_a_reading_of_another_version_is_refused(trained: Trained, tmp_path: Path) -> None:
    weights = _tensors(trained.run / "reading.pt", "average")
    old = {name: tensor for name, tensor in weights.items() if "place_head" not in name}
    torch.save({"average": {"weights": old}}, tmp_path / "reading.pt")
    with pytest.raises(ExportError, match=r"reading.pt has other weights.*new run folder"):
        train_language(LANGUAGE, "nano", trained.material, tmp_path, _MOMENT)
    narrow = {**weights, "testify.weight": weights["testify.weight"][:, 1:]}
    torch.save({"average": {"weights": narrow}}, tmp_path / "reading.pt")
    with pytest.raises(ExportError, match="--start"):
        train_language(LANGUAGE, "nano", trained.material, tmp_path, _MOMENT)


def test_a_teacher_teaches_every_stage(trained: Trained, tmp_path: Path) -> None:
    material, teacher = trained.material, trained.checkpoint
    train_vision("nano", material, tmp_path, _MOMENT, taught_by=teacher)
    (line,) = _lines(tmp_path / "vision.jsonl")
    assert 0 < line["features"] < 2
    train_language(READING, "nano", material, tmp_path, _MOMENT, taught_by=teacher)
    (line,) = _lines(tmp_path / "reading.jsonl")
    assert {"logits", "attention"} <= set(line)
    assert "features" not in line
    train_language(LANGUAGE, "nano", material, tmp_path, _MOMENT, taught_by=teacher)
    (line,) = _lines(tmp_path / "model.jsonl")
    assert {"logits", "attention", "features"} <= set(line)
    words = (material.tokenizer, material.prompts)
    write_checkpoint("nano", *words, tmp_path / "model.pt", tmp_path / "pupil")


def test_a_checkpoint_is_trained_further(trained: Trained, tmp_path: Path) -> None:
    start, material = tmp_path / "start.pt", trained.material
    write_start(
        "nano", material.tokenizer, trained.checkpoint, material.pool, start, batches=2, steps=20
    )
    train_vision("nano", material, tmp_path, _MOMENT, start)
    train_language(READING, "nano", material, tmp_path, _MOMENT, start)
    averaged = _tensors(trained.run / "model.pt", "average")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    moved = _tensors(tmp_path / "reading.pt")[f"model.{name}"]
    assert torch.allclose(moved, averaged[f"model.{name}"], atol=1e-3)
    name = "blocks.0.attn.qkv.weight"
    moved = _tensors(tmp_path / "vision.pt")[f"tower.{name}"]
    assert torch.allclose(moved, averaged[f"model.model.visual.{name}"], atol=1e-3)


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    small_pool: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    material = Material(small_tokenizer, nano_prompts, small_pool, [], {}, [])
    seconds = count()
    weights: list[dict[str, Tensor]] = []
    for stops in ((4,), (2, 4)):
        run = tmp_path / str(len(stops))
        for steps in stops:
            monkeypatch.setattr(Course, "done", property(lambda c, n=steps: c.step >= n))
            train_language(
                READING, "nano", material, run, minutes=1, clock=lambda: float(next(seconds))
            )
        saved = torch.load(run / "reading.pt", weights_only=True)
        assert (saved["step"], saved["seconds"]) == (4, 4.0)
        weights.append(saved["model"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
