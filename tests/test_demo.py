from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image
from prompted import with_prompts
from skimage import data

from idetex_edge.cli.demo import HARMS, spoiled
from idetex_edge.vocabulary import DISTORTIONS

PHOTO = data.coffee()


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("demo") / "nano", "nano", 400)


def test_only_the_named_parts_are_spoiled_and_those_badly() -> None:
    before = PHOTO.copy()
    after = spoiled(PHOTO, HARMS)
    assert (before == PHOTO).all()
    changed = np.abs(after.astype(int) - PHOTO).max(axis=2)
    for harm in HARMS:
        x1, y1, x2, y2 = harm.box
        assert harm.type in DISTORTIONS
        assert changed[y1:y2, x1:x2].mean() > 40
        changed[y1:y2, x1:x2] = 0
    assert not changed.any()
    assert (spoiled(PHOTO, HARMS) == after).all()


def test_what_was_done_stands_beside_what_was_found(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "overlay.png"
    ran = run("demo", "--output", output, bundle=bundle)
    assert (ran.code, ran.err) == (0, "")
    for harm in HARMS:
        (line,) = [line for line in ran.out.splitlines() if f"severe {harm.type.lower()}" in line]
        assert "{}, {} to {}, {}".format(*harm.box) in line
    assert "clean" in ran.out
    assert "spoiled" in ran.out
    assert "overlay.png" in ran.out.replace("\n", "")
    with Image.open(output) as overlay:
        assert overlay.width == 600


def test_an_overlay_that_cannot_be_written(bundle: Path, tmp_path: Path) -> None:
    ran = run("demo", "--output", tmp_path / "gone" / "overlay.png", bundle=bundle)
    assert (ran.code, ran.out) == (1, "")
    assert "overlay.png" in ran.error
    assert not list(tmp_path.iterdir())


def test_without_scikit_image(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: object, **named: object) -> object:
        if name == "skimage":
            raise ImportError(name)
        return original(name, *arguments, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", without)
    ran = run("demo", "--output", tmp_path / "overlay.png", bundle=bundle)
    assert "pip install 'idetex-edge[demo]'" in ran.error
    assert ran.code != 0
