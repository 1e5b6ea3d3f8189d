"""What a conversion may cost on a benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import quiet
from PIL import Image
from skimage import data

from benchmarks.build_benchmark import build_benchmark
from export.bundling.graphs import Recipe
from export.calibration.plan import LayerPlan, Plan
from export.checkpoint import open_checkpoint
from export.convert import Conversion, convert
from export.parity.scoreboard import FALL, Held, Row, Scoreboard, compare
from export.targets import find_target
from idetex_edge import Assessor
from idetex_edge.errors import ExportError, RequestError
from idetex_edge.evaluation.benchmark import open_benchmark
from idetex_edge.evaluation.evaluate import evaluate
from idetex_edge.evaluation.scoring import Scores, Tally


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((360, 300)).save(photos / f"t_{name}.png")
    output = tmp_path_factory.mktemp("benchmarks") / "bench"
    build_benchmark(photos, output, pictures=2, held_out_causes=True, seed=4, advance=quiet)
    return output


def worth(right: int, of: int, precision: float = 0.5) -> Scores:
    classes = {"Noise": precision}
    tally = Tally(right, of)
    return Scores({"type": tally}, classes, classes, classes, tally, tally)


def test_a_row_may_fall_by_what_two_items_are_worth(bench: Path) -> None:
    found = compare(open_benchmark(bench), worth(60, 120), worth(58, 120, 0.6))
    quality = found.rows["Image Quality Accuracy"]
    assert quality.may_fall == pytest.approx(2 / 120)
    assert not quality.fallen
    # Rising is no shortfall.
    assert found.rows["Distortion mAP"].bundle == 0.6
    assert not found.shortfalls()
    lower = compare(open_benchmark(bench), worth(60, 120), worth(57, 120))
    assert any("Image Quality Accuracy falls from 0.5000" in s for s in lower.shortfalls())
    many = compare(open_benchmark(bench), worth(600, 1000), worth(589, 1000))
    assert many.rows["Key Distortion Accuracy"].may_fall == FALL
    assert any("Key Distortion Accuracy" in shortfall for shortfall in many.shortfalls())
    assert Row(0.5, float("nan"), 0.01).fallen


def test_no_plan_answers_a_benchmark_twice(
    brief_checkpoint: Path, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does float32; reasons change nothing of what a plan answers."""
    answered: list[tuple[str, int]] = []

    def scores(recipe: Recipe, _: Path, name: str, __: object) -> Scores:
        answered.append((name, len(recipe.plan.kept)))
        return worth(60 - len(recipe.plan.kept), 120)

    monkeypatch.setattr("export.parity.scoreboard._scores", scores)
    plan = Plan({name: LayerPlan(0.1, "mse", 0.2) for name in "abc"})
    recipe = Recipe(open_checkpoint(brief_checkpoint), *find_target("onnx-standard", "int8"), plan)
    held = Held(recipe, bench, quiet)
    first = held.scoreboard(plan)
    held.scoreboard(plan.keeping({"a": "tried"}))
    again = held.scoreboard(plan.keeping({"a": "its tail"}))
    assert held.scoreboard(plan) is first
    assert answered == [("float32", 0), ("the bundle", 0), ("the bundle", 1)]
    assert again.rows["Image Quality Accuracy"].bundle == pytest.approx(59 / 120)


def test_conversion_is_held_to_a_benchmark(
    brief_checkpoint: Path, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Conversion(
        *(brief_checkpoint, tmp_path / "out", "onnx-cpu", "int8"), bench=bench, steps=32
    )
    made = convert(wanted, quiet).bundle
    report = json.loads(made.file("parity.json").read_text())["scoreboard"]
    assert report["pictures"] == 2
    own = evaluate(
        *(Assessor(made.path), bench, tmp_path / "own"), mos=None, limit=None, advance=quiet
    )
    told = {name: row["bundle"] for name, row in report["rows"].items()}
    assert told == {name: own.scores.to_dict()[name] for name in told}
    assert len(told) == 6
    with pytest.raises(RequestError, match="bench_metadata"):
        convert(replace(wanted, output=tmp_path / "no", bench=tmp_path), quiet)

    def fallen(*_: object) -> Scoreboard:
        return Scoreboard(2, {"Region mAP": Row(0.5, 0.3, 0.01)})

    monkeypatch.setattr("export.parity.scoreboard.Held.scoreboard", fallen)
    failing = replace(wanted, output=tmp_path / "failing")
    with pytest.raises(ExportError, match=r"Region mAP falls from 0\.5000 .* worst layers"):
        convert(failing, quiet)
    assert not failing.output.exists()
    degraded = convert(replace(failing, allow_degraded=True), quiet).bundle
    (reason,) = json.loads(degraded.file("parity.json").read_text())["degraded"]
    assert reason.startswith("Region mAP falls")
