"""A tiny random model on a benchmark built from scikit-image's photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import skimage.data
from command import run
from conftest import quiet
from PIL import Image

from benchmarks.accuracy import accuracy
from benchmarks.build_benchmark import build_benchmark
from idetex_edge import Assessor, EncodedImage, OutputError, RequestError
from idetex_edge.evaluation.evaluate import evaluate
from idetex_edge.evaluation.submission import grounding_text
from idetex_edge.image import ImageSource
from idetex_edge.parsing import parse_grounding
from idetex_edge.requests import Request, region_request
from idetex_edge.results import Box, Distortion

FILES = ("perception.json", "grounding.json", "description.json", "scores.json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        Image.fromarray(getattr(skimage.data, name)()).resize((360, 300)).save(
            folder / f"test_{name}.png"
        )
    rows = [f"test_{name}.png\t{mos}\n" for name, mos in (("astronaut", 0.9), ("coffee", 0.4))]
    (folder / "mos.tsv").write_text("file\tmos_0_1\n" + "".join(rows))
    return folder


def built(photos: Path, output: Path, seed: int = 4, *, held_out: bool = True) -> Path:
    build_benchmark(photos, output, pictures=2, held_out_causes=held_out, seed=seed, advance=quiet)
    return output


@pytest.fixture(scope="module")
def bench(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(photos, tmp_path_factory.mktemp("benchmarks") / "bench")


@pytest.fixture(scope="module")
def assessor(tiny_bundle_path: Path) -> Assessor:
    return Assessor(tiny_bundle_path, threads=1)


@pytest.fixture(scope="module")
def evaluated(
    assessor: Assessor, bench: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("evaluated") / "whole"
    evaluate(assessor, bench, output, mos=photos / "mos.tsv", limit=None, advance=quiet)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_builds_the_same_benchmark(photos: Path, bench: Path, tmp_path: Path) -> None:
    assert contents(built(photos, tmp_path / "again")) == contents(bench)
    assert contents(built(photos, tmp_path / "other", seed=5)) != contents(bench)
    assert contents(built(photos, tmp_path / "seen", held_out=False)) != contents(bench)


def test_what_a_built_benchmark_holds(bench: Path) -> None:
    pictures = json.loads((bench / "bench_metadata.json").read_text())
    questions = json.loads((bench / "mcq.json").read_text())
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(bench / "images" / picture["image"]) as image:
            assert image.size == (picture["width"], picture["height"])
            assert 336 <= max(image.size) <= 360
        for label in picture["distortions"]:
            assert 0 < label["significance_score"] <= 100
    for question in questions:
        assert question["correct_ans"] in question["candidates"]


def test_builders_that_cannot(photos: Path, bench: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        built(photos, bench)
    (tmp_path / "small").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "small" / "icon.png")
    with pytest.raises(RequestError, match="no photograph with a side of 336 px"):
        built(tmp_path / "small", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_submission_is_in_the_benchmarks_order(bench: Path, evaluated: Path) -> None:
    pictures, regions, questions = (
        json.loads((bench / f"{name}.json").read_text())
        for name in ("bench_metadata", "reg-p_bench", "mcq")
    )
    perception, grounding, description = (
        json.loads((evaluated / name).read_text()) for name in FILES[:3]
    )
    assert [p["id"] for p in perception] == [q["id"] for q in questions]
    assert [g["id"] for g in grounding] == [r["id"] for r in [*regions, *pictures]]
    assert [d["id"] for d in description] == [p["id"] for p in pictures]
    assert set(perception[0]) == {*("id", "concern", "question", "image", "candidates", "pred_ans")}
    sizes = ("id", "image", "width", "height", "pred_ans")
    assert set(grounding[0]) == {*sizes, "question", "question_type", "distortions"}
    assert set(description[0]) == {*sizes, "all_distortions", "key_distortions", "image_quality"}
    for record in grounding:
        parsed = parse_grounding(record["pred_ans"])
        assert [list(d.box_1000) for d in parsed] == [
            d["coordinates"] for d in record["distortions"]
        ]
        assert [d.type for d in parsed] == [d["distortion"] for d in record["distortions"]]


def test_the_scores(evaluated: Path) -> None:
    found = json.loads((evaluated / "scores.json").read_text())
    assert list(found) == [
        "Final Score",
        "Perception Accuracy",
        "Region mAP",
        "Distortion mAP",
        "Description mAP",
        "Key Distortion Accuracy",
        "Image Quality Accuracy",
        "Perception Accuracy by concern",
        "Region AP by class",
        "Distortion AP by class",
        "Description AP by class",
        "SRCC",
        "PLCC",
        "SRCC by prefix",
        "PLCC by prefix",
        "Model",
        "Engine",
        "Pictures",
    ]
    assert abs(found["SRCC"]) == pytest.approx(1), "of two photographs"
    assert list(found["SRCC by prefix"]) == ["test"]
    assert {path.name for path in evaluated.iterdir()} == set(FILES)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("stage", ["answering", "scoring"])
def test_a_killed_run_goes_on_where_it_was(
    stage: str,
    assessor: Assessor,
    bench: Path,
    photos: Path,
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(at: str, done: int, total: int) -> None:
        if (at, done) == (stage, 1):
            raise KilledError

    table = photos / "mos.tsv"
    with pytest.raises(KilledError):
        evaluate(assessor, bench, tmp_path, mos=table, limit=None, advance=kill)
    journal = {"answering": "answered.jsonl", "scoring": "scored.jsonl"}[stage]
    with (tmp_path / journal).open("a") as file:
        file.write('{"name": "cut sho')
    encoded: list[ImageSource] = []
    encode = Assessor.encode

    def counted(self: Assessor, picture: ImageSource) -> EncodedImage:
        encoded.append(picture)
        return encode(self, picture)

    monkeypatch.setattr(Assessor, "encode", counted)
    evaluate(assessor, bench, tmp_path, mos=table, limit=None, advance=quiet)
    assert len(encoded) == {"answering": 1 + 2, "scoring": 1}[stage]
    assert contents(tmp_path) == contents(evaluated)


def test_the_beginning_of_another_evaluation_is_not_continued(
    assessor: Assessor, bench: Path, photos: Path, tmp_path: Path
) -> None:
    def kill(at: str, done: int, total: int) -> None:
        raise KilledError

    other = built(photos, tmp_path / "bench", seed=5)
    with pytest.raises(KilledError):
        evaluate(assessor, other, tmp_path / "out", mos=None, limit=None, advance=kill)
    with pytest.raises(OutputError, match="begun with another bundle, engine or benchmark"):
        evaluate(assessor, bench, tmp_path / "out", mos=None, limit=None, advance=quiet)


def test_grounding_text_is_as_the_models_write_it() -> None:
    found = [
        Distortion("Noise", "severe", (1, 2, 3, 4)),
        Distortion("Noise", "severe", (5, 6, 7, 8)),
        Distortion("Noise", "minor", (0, 0, 9, 9)),
        Distortion("Motion blur", "moderate", (0, 0, 1000, 1000)),
    ]
    assert grounding_text([], "\n") == "No distortion"
    assert grounding_text(found, "\n") == (
        "Noise:\n<|object_ref_start|>Severe noise<|object_ref_end|>"
        "<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>"
        "<|object_ref_start|>Minor noise<|object_ref_end|><|box_start|>(0,0),(9,9)<|box_end|>\n"
        "Motion blur:\n<|object_ref_start|>Moderate motion blur<|object_ref_end|>"
        "<|box_start|>(0,0),(1000,1000)<|box_end|>"
    )
    assert parse_grounding(grounding_text(found, " ")) == found


def test_a_checkpoint_scores_as_its_bundle(
    tiny_checkpoint: Path, bench: Path, evaluated: Path, tmp_path: Path
) -> None:
    accuracy(bench, tmp_path, checkpoint=tiny_checkpoint, threads=1)
    for name in FILES[:3]:
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes()


def test_the_command(tiny_bundle_path: Path, bench: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ran = run(
        *("evaluate", "--bench", bench, "--output", output, "--limit", "1", "--threads", "1"),
        bundle=tiny_bundle_path,
    )
    assert (ran.code, ran.err) == (0, "")
    assert "Final Score" in ran.out
    assert "pictures: 1" in ran.out
    assert json.loads((output / "scores.json").read_text())["Pictures"] == 1
    wrong = run("evaluate", "--bench", tmp_path, "--output", output, bundle=tiny_bundle_path)
    assert wrong.code == 2
    assert wrong.error.endswith("is no benchmark: it has no bench_metadata.json that can be read")


def test_regions_are_put_to_the_model_as_the_benchmark_has_them(
    assessor: Assessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[int]] = []

    def spy(box_1000: Box) -> Request:
        asked.append(box_1000)
        return region_request(box_1000)

    monkeypatch.setattr("idetex_edge.assessor.region_request", spy)
    assessor.ground(Image.new("RGB", (60, 60)), region_1000=(1, 514, 875, 998))
    assert asked == [(1, 514, 875, 998)]
    with pytest.raises(RequestError):
        assessor.ground(Image.new("RGB", (60, 60)), region_1000=(1, 514, 875, 1001))


def test_a_bundle_or_a_checkpoint_but_not_both(
    tiny_checkpoint: Path, tiny_bundle_path: Path, bench: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="exclude each other"):
        accuracy(bench, tmp_path, bundle=str(tiny_bundle_path), checkpoint=tiny_checkpoint)
