"""Every part of the recipe can be left out, and leaving it out changes just that."""

import json
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from conftest import quiet
from tokenizers import Tokenizer

from export.distortions.chance import Chance
from export.distortions.compose import Truth
from export.pool.photos import clean_photos, list_photos
from export.pool.shards import Shard, crop_to, write_shard
from export.recipe import PARTS, Recipe, recipe_without
from export.supervision import choices
from export.supervision.mixture import BOXES, EVERYTHING, JOINED, without_brief
from export.supervision.wording import FirstWords
from export.training import ablation, checking, unfolding
from export.training.ablation import Setting, ablate, markdown, parts_of
from export.training.batches import Batches
from export.training.evidence import ABSENT, PRESENT, score_told, told
from export.training.known import GRADES, LOOKS, Known
from export.training.packing import TASK_WEIGHTS
from export.training.stages import LANGUAGE, READING, Material, asked_of, tasks_of, weights_of
from export.training.student import Student
from export.training.team import Team
from export.training.train import CHECKS
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet

TRUTHS = [
    Truth("Noise", "severe", (0, 0, 400, 400), 0.16, "test"),
    Truth("Motion blur", "minor", (500, 500, 1000, 1000), 0.25, "test"),
]


def test_only_parts_can_be_left_out() -> None:
    assert all(part in Recipe() for part in PARTS)
    less = recipe_without(["mirroring"])
    assert [part for part in PARTS if part not in less] == ["mirroring"]
    with pytest.raises(ExportError, match="no part 'flipping'; it has cropping"):
        recipe_without(["flipping"])


def test_mirroring(small_pool: Path) -> None:
    turned = [b.mirrored for b in islice(Batches(small_pool, 400_000, 0), 6)]
    assert len({pair for pairs in turned for pair in pairs}) > 1
    plain = [b.mirrored for b in islice(Batches(small_pool, 400_000, 0, mirrors=False), 6)]
    assert {pair for pairs in plain for pair in pairs} == {(False, False)}


def test_redrawing(small_pool: Path) -> None:
    batch = next(iter(Batches(small_pool, 400_000, 0, mirrors=False)))

    def asked(draw: str, *without: str) -> list[str]:
        found = asked_of(batch, draw, EVERYTHING, recipe_without(without))
        return [json.dumps((e.task, dict(e.fields), e.answer)) for row in found for e in row]

    assert asked("1") != asked("2")
    assert asked("1") == asked("1")
    assert asked("1", "redrawing") == asked("2", "redrawing")


def test_rephrasing() -> None:
    def questions(words: type[Random]) -> set[str]:
        made = [make(TRUTHS, words(seed)) for seed in range(60) for make in choices.CHOICES]
        return {example.fields["question"].split("question: ")[-1] for example in made if example}

    firsts = (
        *(choices.PRESENT[0], choices.WHERE[0], choices.WHAT_THERE[0], choices.HOW_SEVERE[0]),
        *(choices.MOST[0], "What type of distortion is not present in this image?"),
    )
    starts = tuple(first.partition("{")[0] for first in firsts)
    plain = questions(FirstWords)
    assert all(question.startswith(starts) for question in plain)
    assert len(plain) < len(questions(Random))


def test_mixing_and_shortening() -> None:
    assert weights_of(Recipe()) == TASK_WEIGHTS
    assert tasks_of(READING, Recipe(), 0.9) == READING.mixture
    assert tasks_of(READING, Recipe(), 0.1) == BOXES
    assert tasks_of(LANGUAGE, Recipe(), 0.1) == JOINED
    without = recipe_without(["mixing", "shortening"])
    assert set(weights_of(without).values()) == {1.0}
    tasks = tasks_of(READING, without, 0.1)
    assert {task: times for task, times in tasks.items() if times != 1} == {"brief": 0.0}
    assert without_brief(EVERYTHING) == {**EVERYTHING, "brief": 0.0}


def test_doubt() -> None:
    known = Known(torch.rand(2, 5, 30).round(), torch.rand(2, 5, 4), torch.tensor([1.5, 4.0]))
    draw = torch.Generator().manual_seed(0)
    exact = told(known, draw, doubtful=False)
    assert torch.equal(exact[..., :30] > 0, known.grades > 0)
    assert set(exact[..., :30].unique().tolist()) == {ABSENT, PRESENT}
    assert torch.equal(exact[..., GRADES : GRADES + LOOKS], known.looks)
    assert torch.equal(score_told(exact), known.scores)
    doubted = told(known, draw)
    assert not (doubted == exact).any()


def test_cropping_and_resampling(photo_folder: Path, tmp_path: Path) -> None:
    photo = clean_photos(list_photos(photo_folder), held_out=False)[0]
    picture = photo.load()
    middles = [crop_to(picture, 224, 224, Chance(seed), anywhere=False) for seed in range(8)]
    # Only a mirror is left to chance.
    assert len({tuple(m.flatten().tolist()[:99]) for m in middles}) <= 2
    assert not torch.equal(middles[0], crop_to(picture, 224, 224, Chance(0)))
    common = ([photo], photo_folder, 2, False)
    plain = Shard.open(write_shard(tmp_path / "a", *common, recipe_without(["resampling"])))
    whole = Shard.open(write_shard(tmp_path / "b", *common))
    assert plain.images.shape == whole.images.shape
    assert (plain.images != whole.images).any()


def _checked_on(photos: Path, run: Path) -> None:
    """Let a run validate on one shard of trained causes, and on one of held-out ones."""
    clean = clean_photos(list_photos(photos), held_out=False)
    for name, held_out in CHECKS.items():
        shard = write_shard(run / name, clean, photos, seed=2, held_out=held_out)
        folder = run / "checks" / name
        folder.mkdir(parents=True)
        for seed in range(900_000, 900_008):
            (folder / f"{seed}_x").symlink_to(shard)


def test_the_worth_of_a_part_is_what_is_lost_without_it(
    photo_folder: Path,
    small_pool: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    model.mkdir()
    small_tokenizer.save(str(model / "tokenizer.json"))
    (model / "prompts.json").write_text(json.dumps(nano_prompts.to_dict()))
    _checked_on(photo_folder, run)
    seen: list[tuple[int, int]] = []

    def advance(_: str, done: int, total: int) -> None:
        seen.append((done, total))

    def write(preset: str, tokenizer: Tokenizer, checkpoint: Path, pool: Path, file: Path) -> None:
        assert (checkpoint, pool) == (model, small_pool)
        torch.save(Student(preset, tokenizer).state_dict(), file)

    def train_here(team: Team) -> None:
        assert team.size == 1
        team.work(*team.args)

    monkeypatch.setattr(unfolding, "write_start", write)
    monkeypatch.setattr(ablation, "train_apart", train_here)
    monkeypatch.setattr(checking, "_BATCHES", 2)
    common = ("reading", "nano", model, photo_folder, small_pool, run, 1e-4, ["doubt"])
    found = ablate(*common, True, None, None, 1, advance)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    table = json.loads((run / "ablation.json").read_text())
    assert (table["variants"], table["trained"]) == (found, True)
    with pytest.raises(
        ExportError, match="has variants with trained True, not False; give a new run"
    ):
        ablate(*common, False, None, None, 1, advance)
    assert set(found) == {"whole", "doubt"}
    header, rule, whole, without = markdown(found).splitlines()
    assert "seen choice" in header
    assert set(rule) == set("| -")
    assert whole.startswith("| nothing |")
    lost = found["doubt"]["seen"]["loss"] - found["whole"]["seen"]["loss"]
    assert f"({lost:+.3f})" in without


@pytest.mark.parametrize(("stage", "file"), [("reading", "reading.pt"), ("language", "model.pt")])
def test_variants_of_a_trained_model_begin_with_its_weights(
    stage: str,
    file: str,
    small_pool: Path,
    tmp_path: Path,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
) -> None:
    begun = tmp_path / "start.pt"
    fresh = Student("nano", small_tokenizer).state_dict()
    torch.save({name: value + 0.05 for name, value in fresh.items()}, begun)
    material = Material(small_tokenizer, nano_prompts, small_pool, [], {}, [])
    Setting(stage, "nano", material, 1e-4, begun).train("mirroring", tmp_path)
    start, trained = torch.load(begun), torch.load(tmp_path / file)["model"]
    assert all(torch.allclose(trained[key], start[key], atol=1e-2) for key in start)


def test_what_cannot_be_left_out_of_a_stage(tmp_path: Path) -> None:
    where = ("nano", tmp_path, tmp_path, tmp_path, tmp_path, 1.0, ["evidence"])
    with pytest.raises(ExportError, match="give --trained"):
        ablate("language", *where, False, None, None, 2, quiet)
    assert "doubt" in parts_of("reading")
    assert "photographs" in parts_of("language")
    assert "teaching" not in parts_of("language")
    assert "labels" not in parts_of("vision")
    assert "teaching" in parts_of("reading", given=["teaching"])
    assert {"labels", "teaching"} <= set(parts_of("language", given=["labels", "teaching"]))
    for stage, part, says in (
        ("reading", "photographs", "belongs to vision and language"),
        ("reading", "cropping", "makes the pool"),
        ("reading", "x", "no part 'x'"),
        ("language", "teaching", "give --teacher"),
        ("vision", "labels", "give --vida"),
        ("dreaming", "doubt", "unknown stage"),
    ):
        with pytest.raises(ExportError, match=says):
            parts_of(stage, [part])
    with pytest.raises(ExportError, match="no part 'labels'; it belongs to vision and language"):
        parts_of("reading", given=["labels"])
