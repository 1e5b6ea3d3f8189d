"""The distortion engine: deterministic, in range, truthful about what it did."""

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from export.distortions.causes import CAUSES, CHAIN, Cause, causes_of
from export.distortions.chance import Chance
from export.distortions.compose import spoil
from export.distortions.filters import convolve, from_ycc, gaussian_kernel, resize, to_ycc
from export.distortions.masks import bounds
from idetex_edge.boxes import to_thousandths
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()[:224, 100:380].copy()).permute(2, 0, 1) / 255


def _likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.asarray(structural_similarity(first, second, channel_axis=2, data_range=1.0)))


@pytest.mark.parametrize("cause", CAUSES, ids=lambda c: f"{c.distortion}: {c.name}")
def test_every_cause_gets_worse_with_severity(cause: Cause, photo: Tensor) -> None:
    clean = photo.permute(1, 2, 0).numpy()
    likeness: list[float] = []
    for severity in range(len(SEVERITIES)):
        spoiled = cause.apply(photo, sum(cause.ranges[severity]) / 2, Chance(3))
        assert spoiled.shape == photo.shape
        assert torch.isfinite(spoiled).all()
        array = spoiled.clamp(0, 1).permute(1, 2, 0).numpy()
        likeness.append(_likeness(clean, array))
    assert likeness[0] < 0.999
    if cause.distortion != "Meaningless solid color":
        assert likeness[0] > likeness[1] > likeness[2]


def test_every_distortion_has_trained_and_held_out_causes() -> None:
    assert set(CHAIN) == set(DISTORTIONS)
    for distortion in DISTORTIONS:
        assert len(causes_of(distortion, held_out=False)) >= 2
        assert len(causes_of(distortion, held_out=True)) >= 1


@settings(max_examples=40)
@given(seed=st.integers(0, 2**40))
def test_spoiling_is_deterministic_and_confined_to_its_masks(seed: int) -> None:
    coffee = skimage.data.coffee()[:196, :252].copy()
    clean = torch.from_numpy(coffee).permute(2, 0, 1) / 255
    first, second = spoil(clean, seed), spoil(clean, seed)
    assert torch.equal(first.image, second.image)
    assert first.truths == second.truths
    assert torch.equal(first.image * 255, (first.image * 255).round())
    untouched = torch.ones(clean.shape[1:], dtype=torch.bool)
    for truth, mask in zip(first.truths, first.masks, strict=True):
        assert truth.box == to_thousandths(bounds(mask), 252, 196)
        assert 0 < truth.area <= 1
        untouched &= mask == 0
    if first.truths:
        changed = (first.image - clean).abs().amax(0) > 1 / 254
        # Truths that later ones hid are dropped, but then a later mask covers most of them.
        assert (changed & untouched).sum() <= 0.7 * changed.sum()
    else:
        assert torch.allclose(first.image, clean, atol=1 / 255)


def test_convolution_matches_a_direct_one(photo: Tensor) -> None:
    kernel = gaussian_kernel(1.3)
    radius = kernel.shape[0] // 2
    padded = np.pad(photo[0].numpy(), radius, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    direct = (windows * kernel.numpy()).sum((-1, -2))
    assert np.allclose(convolve(photo, kernel)[0].numpy(), direct, atol=1e-5)


def test_colour_planes_round_trip(photo: Tensor) -> None:
    assert torch.allclose(from_ycc(to_ycc(photo)), photo, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(48, 27), (27, 48)])
def test_shrinking_one_way_alone_does_not_alias(height: int, width: int) -> None:
    stripes = (torch.arange(48) % 2).float().expand(48, 48)
    across = resize(stripes[None] if width < 48 else stripes.T[None], height, width, "bilinear")
    assert float((across - 0.5).abs().max()) < 0.15


@pytest.mark.parametrize("cause", causes_of("Motion blur", held_out=False), ids=lambda c: c.name)
@pytest.mark.parametrize("severity", range(3))
def test_motion_moves_nothing_on_the_whole(cause: Cause, severity: int) -> None:
    """Else severity would be punished twice, and masks would have seams."""
    dot = torch.zeros(3, 120, 160)
    dot[:, 60, 80] = 1.0
    blurred = cause.apply(dot, sum(cause.ranges[severity]) / 2, Chance(7))[0] ** 2.2
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    total = blurred.sum()
    assert float((blurred * y).sum() / total) == pytest.approx(60, abs=1.2)
    assert float((blurred * x).sum() / total) == pytest.approx(80, abs=1.2)


@pytest.mark.parametrize("name", ["turning camera", "zooming"])
def test_all_of_a_picture_moves_about_as_far_as_its_severity_says(name: str) -> None:
    (cause,) = (c for c in CAUSES if c.name == name)
    for place in ((20, 20), (60, 80), (100, 140)):
        dot = torch.zeros(3, 120, 160)
        dot[(slice(None), *place)] = 1.0
        lit = (cause.apply(dot, 14, Chance(5))[0] > 0.05).nonzero().float()
        travel = float((lit.amax(0) - lit.amin(0)).norm())
        assert 0.55 * 14 < travel < 1.6 * 14
