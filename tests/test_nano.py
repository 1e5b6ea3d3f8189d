"""The bundled model itself: whole, small, deterministic, and not blind."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter

import idetex_edge
from idetex_edge import Assessor

_PHOTOS: Final = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    return Assessor(threads=2)


def _photo(name: str) -> Image.Image:
    array: np.ndarray = getattr(skimage.data, name)()
    return Image.fromarray(array)


def _blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(6))


def _noisy(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 50, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _blocky(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=4)
    return Image.open(buffer).convert("RGB")


def _dark(picture: Image.Image) -> Image.Image:
    return Image.eval(picture, lambda value: value // 8)


_SPOILERS: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "blur": _blurred,
    "noise": _noisy,
    "blocking": _blocky,
    "darkness": _dark,
}


def test_severe_spoiling_lowers_the_score(assessor: Assessor) -> None:
    falls: list[bool] = []
    for name in _PHOTOS:
        photo = _photo(name)
        clean = assessor.score(photo).score
        falls += [assessor.score(spoil(photo)).score < clean for spoil in _SPOILERS.values()]
    assert np.mean(falls) >= 0.8


def test_the_same_picture_gives_the_same_assessment(assessor: Assessor) -> None:
    photo = _photo("coffee")
    first, second = (assessor.assess(photo).to_dict() for _ in range(2))
    first.pop("timings")
    second.pop("timings")
    assert first == second


@pytest.mark.parametrize(("spoiler", "kind"), [("noise", "Noise"), ("darkness", "Underexposure")])
def test_what_dominates_a_picture_is_named(assessor: Assessor, spoiler: str, kind: str) -> None:
    spoil = _SPOILERS[spoiler]
    named = [kind in {d.type for d in assessor.ground(spoil(_photo(name)))} for name in _PHOTOS]
    falsely = [kind in {d.type for d in assessor.ground(_photo(name))} for name in _PHOTOS]
    assert np.mean(named) >= 0.75
    assert np.mean(falsely) <= 0.25


def test_the_bundle_is_small_and_says_what_it_is() -> None:
    folder = Path(idetex_edge.__file__).parent / "models" / "nano"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    assert "licence" in (folder / "README.md").read_text().lower()
