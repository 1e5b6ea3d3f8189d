"""What the workshop's commands hand on: every option reaches the parameter it is meant for."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.recipe import recipe_without
from export.training.ablation import ablate
from export.training.train import train


def _heard(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], answer: object, *arguments: str
) -> dict[str, Any]:
    """The arguments with which a command line calls `command`, which answers and does nothing."""
    signature = inspect.signature(command)
    calls: list[dict[str, Any]] = []

    def note(*values: object, **named: object) -> object:
        calls.append(dict(signature.bind(*values, **named).arguments))
        return answer

    monkeypatch.setattr(f"{command.__module__}.{command.__name__}", note)
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert not left.value.code
    (call,) = calls
    return call


_COMMON = ("--photos", "p", "--run", "r", "--minutes", "7", "--pictures", "9", "--processes", "3")
_EXPECTED = {
    "photos": Path("p"),
    "run": Path("r"),
    "minutes": 7,
    "pictures": 9,
    "processes": 3,
    "vida": Path("v"),
    "recipe": recipe_without(["doubt"]),
}


def test_train(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--preset", "mini", "--start", "s", "--texts", "t", "--vida", "v")
    heard = _heard(monkeypatch, train, "", "train", *_COMMON, *options, "--without", "doubt")
    assert heard == _EXPECTED | {"preset": "mini", "start": Path("s"), "texts": [Path("t")]}


def test_distill(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--teacher", "t", "--student", "mini", "--vida", "v", "--without", "doubt")
    heard = _heard(monkeypatch, train, "", "distill", *_COMMON, *options)
    assert heard == _EXPECTED | {"preset": "mini", "teacher": Path("t"), "texts": []}


def test_ablate(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--pool", "o", "--stage", "vision", "--part", "labels", "--vida", "v", "--trained")
    common = ("--photos", "p", "--run", "r", "--minutes", "7", "--processes", "3")
    table = {"whole": {"seen": {"mean": 0.5}}}
    heard = _heard(monkeypatch, ablate, table, "ablate", *common, *options)
    del heard["advance"]
    assert heard == {
        "stage": "vision",
        "preset": "nano",
        "model": Path("checkpoints/nano"),
        "photos": Path("p"),
        "pool": Path("o"),
        "run": Path("r"),
        "minutes": 7,
        "parts": ["labels"],
        "trained": True,
        "teacher": None,
        "vida": Path("v"),
        "processes": 3,
    }


def test_an_unknown_part_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "--photos", "p", "--run", "r", "--without", "sleep"])
    assert left.value.code == 1
    said = capsys.readouterr().err.strip()
    assert "no part 'sleep'" in said
    assert "\n" not in said
