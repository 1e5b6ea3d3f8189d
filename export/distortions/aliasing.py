"""Edge aliasing: pixels dropped, repeated or misplaced without a filter."""

import math

import torch
from PIL.Image import Resampling
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import gaussian_blur, resize
from export.distortions.resampling import resize_by, smaller, there_and_back


def nearest_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated and repeated: stairs on every edge."""
    return there_and_back(image, factor, "nearest", "nearest")


def averaged_nearest_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk properly but enlarged by repetition: large clean pixels."""
    return there_and_back(image, factor, "bilinear", "nearest")


def decimated(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged smoothly: broken, wavy edges."""
    return there_and_back(image, 1.25 * factor, "nearest", "bilinear")


def stretched(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated by other factors across and down and repeated: pixels that are not square."""
    height, width = image.shape[-2:]
    across, down = chance.uniform(0.7, 1.5) * factor, factor
    if chance.random() < 0.5:
        across, down = down, across
    small = (max(4, round(height / down)), max(4, round(width / across)))
    return resize(resize(image, *small, mode="nearest"), height, width, mode="nearest")


def decimated_twice(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated, enlarged by repetition half of the way and smoothly the rest: soft stairs."""
    height, width = image.shape[-2:]
    small = resize(image, *smaller(image, 1.1 * factor), mode="nearest")
    middle = smaller(image, (1.1 * factor) ** chance.uniform(0.2, 0.5))
    return resize(resize(small, *middle, mode="nearest"), height, width, mode="bilinear")


def decimated_bicubic(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged bicubically."""
    return there_and_back(image, 1.25 * factor, "nearest", "bicubic")


def decimated_windowed(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged by a windowed sinc: broken edges with rims."""
    height, width = image.shape[-2:]
    small = resize(image, *smaller(image, 1.25 * factor), mode="nearest")
    return resize_by(small, height, width, Resampling.LANCZOS)


def interlaced(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Every other line or few lines held, as a bad deinterlacer leaves them."""
    height = image.shape[-2]
    hold = max(2, round(factor))
    rows = (torch.arange(height, device=image.device) // hold * hold).clamp(max=height - 1)
    return image[:, rows, :]


def decimated_spline(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged and smoothed as a spline does: rounded stairs."""
    factor = 1.2 * factor
    stairs = there_and_back(image, factor, "nearest", "nearest")
    return gaussian_blur(stairs, chance.uniform(0.2, 0.36) * factor)


def decimated_sharpened(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated, enlarged smoothly and sharpened a little to make up for it: hard broken edges."""
    broken = there_and_back(image, 1.15 * factor, "nearest", "bilinear")
    soft = gaussian_blur(broken, chance.uniform(1.0, 1.8))
    return broken + chance.uniform(0.2, 0.4) * (broken - soft)


def decimated_one_way(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated along one axis only and interpolated, as skipped sensor lines are."""
    height, width = image.shape[-2:]
    rows, columns = smaller(image, 1.3 * factor)
    size = (rows, width) if chance.random() < 0.5 else (height, columns)
    return resize(resize(image, *size, mode="nearest"), height, width, mode="bilinear")


def turned_pixels(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Large pixels on a grid that is turned, as a picture turned after it was enlarged has them."""
    angle = chance.uniform(0.2, 0.6) * chance.choice((-1, 1))
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = _places(image)
    across, down = x * cos + y * sin, y * cos - x * sin
    across, down = (((side / factor).floor() + 0.5) * factor for side in (across, down))
    rows, columns = across * sin + down * cos, across * cos - down * sin
    return _fetched(image, rows.round().long(), columns.round().long())


def shaken_pixels(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Every pixel fetched from a place beside it, as frosted effects and bad warps do."""
    reach = 0.55 * factor
    y, x = _places(image)
    shift = (chance.uniform_tensor((2, *y.shape), image) - 0.5) * 2 * reach
    down, across = shift.round().long()
    return _fetched(image, y + down, x + across)


def hard_edges(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Enlarged by thresholds between a coarse pixel's corners: cut-out, jagged outlines."""
    height, width = image.shape[-2:]
    small = resize(image, *smaller(image, factor), mode="bilinear")
    stairs = resize(small, height, width, mode="nearest")
    steps = chance.randint(10, 20)
    smooth = resize(small, height, width, mode="bilinear")
    cut = (smooth * steps).round() / steps
    share = chance.uniform(0.3, 0.6)
    return share * stairs + (1 - share) * cut


def _places(image: Tensor) -> tuple[Tensor, Tensor]:
    """The row and the column [H, W] of every pixel."""
    height, width = image.shape[-2:]
    axes = (torch.arange(height, device=image.device), torch.arange(width, device=image.device))
    y, x = torch.meshgrid(*axes, indexing="ij")
    return y, x


def _fetched(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at rows and columns [H, W]; the nearest one for places outside."""
    height, width = image.shape[-2:]
    return image[:, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
