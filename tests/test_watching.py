"""A run can be watched: its logs become bars on the terminal and a plot."""

import json
from pathlib import Path

import pytest
from PIL import Image

from export.training.watching import PLOT, draw, figures, read_log, trend, watching


def _log(run: Path, stage: str, checks: dict[str, dict[str, float]]) -> None:
    lines = [
        {"step": 10 * i, "pictures": 20 * i, "minutes": i / 2, "loss": 3.0 / (1 + i)}
        for i in range(1, 6)
    ]
    lines[-1] |= {"checks": checks}  # type: ignore[dict-item]
    (run / f"{stage}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_bars_show_loss_and_last_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _log(tmp_path, "vision", {"seen": {"Noise": 0.9, "mean": 0.875}})
    with watching(tmp_path, {"vision": 5, "model": 10}):
        pass
    shown = capsys.readouterr().err
    assert "vision" in shown
    assert "loss 0.500, seen 0.875" in " ".join(shown.split())
    assert (tmp_path / PLOT).is_file()


def test_the_trend_follows_and_is_calmer() -> None:
    assert trend([]) == []
    assert trend([2.0] * 30) == pytest.approx([2.0] * 30)
    assert trend([3.0, 1.0])[1] == pytest.approx((0.93 * 3 + 1) / 1.93)
    shaken = trend([1.0 + (-1) ** number for number in range(200)])
    assert max(shaken[50:]) - min(shaken[50:]) < 0.1
    assert trend([5.0] * 50 + [1.0] * 100)[-1] == pytest.approx(1.0, abs=0.01)


def test_the_plot_shows_what_there_is(tmp_path: Path) -> None:
    with Image.open(draw(tmp_path)) as empty:
        colours_before = len(empty.convert("RGB").getcolors(1 << 24) or [])
    _log(
        tmp_path,
        "model",
        {"seen": {"choice": 0.5}, "unseen": {"choice": 0.25}, "people": {"srcc": 0.4}},
    )
    with Image.open(draw(tmp_path)) as plot:
        assert plot.size == (1320, 660)
        assert len(plot.convert("RGB").getcolors(1 << 24) or []) > colours_before
    assert [line["step"] for line in read_log(tmp_path, "model")] == [10, 20, 30, 40, 50]
    assert read_log(tmp_path, "reading") == []
    assert figures({"seen": {"choice": 0.5, "loss": 1.0}}) == {"seen": 0.5}
    assert figures({"people": {"srcc": 0.4, "plcc": 0.5}}) == {"people": 0.4}
