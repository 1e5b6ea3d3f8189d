import os
from itertools import combinations
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab

from idetex_edge.errors import OutputError
from idetex_edge.overlay import COLOURS, draw_overlay, save_image_atomically
from idetex_edge.results import Distortion
from idetex_edge.vocabulary import DISTORTIONS, LEVELS, SEVERITIES

PHOTO = Image.fromarray(data.astronaut())
FOUND = st.builds(
    Distortion,
    st.sampled_from(DISTORTIONS),
    st.sampled_from(SEVERITIES),
    st.tuples(*[st.integers(0, 1000)] * 4),
)


def coloured(image: Image.Image, kind: str) -> npt.NDArray[np.bool_]:
    return (np.asarray(image) == COLOURS[kind]).all(-1)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(
    st.integers(8, 600),
    st.integers(8, 600),
    st.lists(FOUND, max_size=9),
    st.one_of(st.none(), st.floats(0, 100)),
    st.sampled_from([None, *LEVELS]),
)
@settings(max_examples=60)
def test_anything_can_be_drawn(
    width: int, height: int, found: list[Distortion], score: float | None, level: str | None
) -> None:
    picture = Image.new("RGB", (width, height), (9, 9, 9))
    overlay = draw_overlay(picture, found, score=score, level=level)
    assert overlay.mode == "RGB"
    assert overlay.width >= max(width, 400)
    assert overlay.height > height
    for kind in {distortion.type for distortion in found}:
        assert coloured(overlay, kind).any()


def test_a_frame_lies_where_its_box_is_and_the_rest_is_untouched() -> None:
    before = PHOTO.copy()
    found = Distortion("Overexposure", "moderate", (250, 500, 750, 750))
    overlay = draw_overlay(PHOTO, [found])
    assert before == PHOTO
    assert overlay.width == 512
    drawn = (np.asarray(overlay)[:512] != np.asarray(PHOTO)).any(-1)
    # The label stands above the box; a rim of one pixel goes around the line.
    assert not drawn[:230].any()
    assert not drawn[385:].any()
    assert not drawn[:, :127].any()
    assert not drawn[:, 385:].any()
    assert not drawn[260:380, 135:378].any()
    edge = coloured(overlay, "Overexposure")
    assert edge[256:384, 128].all()
    assert edge[256:384, 383].all()
    assert edge[383, 128:384].all()


def test_boxes_follow_the_picture_they_are_drawn_on() -> None:
    found = Distortion("Noise", "moderate", (250, 500, 750, 750)).placed(100, 100)
    overlay = draw_overlay(PHOTO.resize((1024, 1024)), [found])
    assert coloured(overlay, "Noise")[512:768, 256].all()


def test_severity_shows() -> None:
    amounts: list[int] = []
    for severity in SEVERITIES:
        overlay = draw_overlay(PHOTO, [Distortion("Noise", severity, (100, 300, 900, 900))])
        amounts.append(int(coloured(overlay, "Noise")[200:512].sum()))
    assert amounts[0] < 0.8 * amounts[1]
    assert amounts[1] < 0.8 * amounts[2]


def test_distortions_of_one_box_can_all_be_seen() -> None:
    """Every frame and most of every label: nothing lies under anything else."""
    box = (100, 200, 900, 900)
    kinds = DISTORTIONS[:5]
    together = draw_overlay(PHOTO, [Distortion(kind, "moderate", box) for kind in kinds])
    for kind in kinds:
        alone = draw_overlay(PHOTO, [Distortion(kind, "moderate", box)])
        assert coloured(together, kind)[:512].sum() > 0.7 * coloured(alone, kind)[:512].sum()


def test_small_pictures_are_enlarged_by_whole_pixels() -> None:
    small = PHOTO.resize((50, 40))
    overlay = draw_overlay(small, [])
    picture = np.asarray(overlay)[:320, :400]
    assert np.array_equal(picture[::8, ::8], np.asarray(small))
    assert np.array_equal(picture[7::8, 7::8], np.asarray(small))


def test_the_strip_tells_the_score() -> None:
    strips = [
        draw_overlay(PHOTO, [], score=score, level=level).crop((0, 512, 512, 540)).tobytes()
        for score, level in [(None, None), (10.0, None), (60.0, None), (60.0, "good")]
    ]
    assert len(set(strips)) == len(strips)


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_told_apart(sight: str) -> None:
    assert list(COLOURS) == list(DISTORTIONS)
    encoded = np.array(list(COLOURS.values())) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ SIGHT[sight].T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    assert min(deltaE_ciede2000(one, other) for one, other in combinations(lab, 2)) > 10


@pytest.mark.parametrize("name", ["o.png", "o.JPG", "o.webp", "o.tiff"])
def test_saving(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_text("old")
    with target.open() as reader:
        save_image_atomically(PHOTO, target)
        assert reader.read() == "old"
    assert Image.open(target).size == PHOTO.size
    assert contents(tmp_path) == [name]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link.png", tmp_path / "target.png"
    link.symlink_to(target)
    save_image_atomically(PHOTO, link)
    assert link.is_symlink()
    assert Image.open(target).size == PHOTO.size


def test_a_failure_while_writing_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "o.png"
    target.write_text("old")

    def fill_the_disk(_image: object, stream: BinaryIO, _format: str) -> None:
        stream.write(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        save_image_atomically(PHOTO, target)
    assert target.read_text() == "old"
    assert contents(tmp_path) == ["o.png"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for name, reason in [
        ("o.txt", "'.txt' is no picture format"),
        ("overlay", "'' is no picture format"),
        ("missing/o.png", "No such file or directory"),
        ("file/o.png", "Not a directory"),
        ("folder.png", "directory"),
        ("n\0.png", "null"),
    ]:
        (tmp_path / "file").touch()
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match=reason) as caught:
            save_image_atomically(PHOTO, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == ["file", "folder.png"]


def test_pictures_that_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_image_atomically(Image.new("RGB", (70_000, 1)), tmp_path / "o.gif")
    assert contents(tmp_path) == []
