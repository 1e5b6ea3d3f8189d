"""Low clarity and edge aliasing: detail lost or sampled wrongly on the way through other sizes."""

import torch
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import convolve, gaussian_blur, resize


def _smaller(image: Tensor, factor: float) -> tuple[int, int]:
    height, width = image.shape[-2:]
    return max(4, round(height / factor)), max(4, round(width / factor))


def _there_and_back(image: Tensor, factor: float, down: str, up: str) -> Tensor:
    small = resize(image, *_smaller(image, factor), mode=down)
    return resize(small, image.shape[-2], image.shape[-1], mode=up)


def bicubic_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk `factor` times and enlarged again, bicubic."""
    return _there_and_back(image, factor, "bicubic", "bicubic")


def bilinear_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk by area averaging and enlarged bilinearly."""
    return _there_and_back(image, factor, "area", "bilinear")


def soft_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk, enlarged and softened once more, with some contrast lost."""
    soft = gaussian_blur(_there_and_back(image, 0.8 * factor + 0.2, "area", "bicubic"), 0.7)
    return soft + 0.06 * (factor - 1) * (soft.mean() - soft)


def haze(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Fog: light scattered into the view, detail and contrast going."""
    veil = min(0.8, 0.22 * (factor - 0.6))
    airlight = chance.uniform(0.65, 0.9)
    tint = torch.tensor([chance.uniform(-0.03, 0.03) for _ in range(3)], device=image.device)
    hazy = image * (1 - veil) + (airlight + tint)[:, None, None] * veil
    return gaussian_blur(hazy, 0.35 + 0.25 * factor)


def diffused(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """A mist filter or a greasy lens: a wide blur laid over what is sharp, contrast going."""
    share = min(0.7, 0.2 * factor)
    wide = gaussian_blur(image, chance.uniform(3, 9))
    veiled = image * (1 - share) + share * (0.85 * wide + 0.15 * wide.mean())
    return gaussian_blur(veiled, 0.3 + 0.22 * factor)


def resampled_twice(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk in two bilinear steps and enlarged in two, as pictures passed through tools are."""
    first = chance.uniform(0.4, 0.6)
    middle = _smaller(image, factor**first)
    small = resize(resize(image, *middle, mode="bilinear"), *_smaller(image, factor), mode="area")
    back = resize(small, *middle, mode="bilinear")
    return resize(back, image.shape[-2], image.shape[-1], mode="bicubic")


def waxy(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """A denoiser gone too far: texture smeared, strong edges kept.

    A self-guided filter (He et al., "Guided Image Filtering", ECCV 2010, section 3.4).
    """
    reach = round(1.5 + factor)
    threshold = (0.04 + 0.025 * factor) ** 2

    side = 2 * reach + 1
    box = torch.full((side, side), 1 / side**2)

    def local_mean(values: Tensor) -> Tensor:
        return convolve(values, box)

    mean = local_mean(image)
    variance = (local_mean(image * image) - mean * mean).clamp(min=0)
    slope = variance / (variance + threshold)
    return local_mean(slope) * image + local_mean((1 - slope) * mean)


def nearest_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated and repeated: stairs on every edge."""
    return _there_and_back(image, factor, "nearest", "nearest")


def averaged_nearest_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk properly but enlarged by repetition: large clean pixels."""
    return _there_and_back(image, factor, "bilinear", "nearest")


def decimated(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged smoothly: broken, wavy edges."""
    return _there_and_back(image, 1.25 * factor, "nearest", "bilinear")


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
    small = resize(image, *_smaller(image, 1.1 * factor), mode="nearest")
    middle = _smaller(image, (1.1 * factor) ** chance.uniform(0.2, 0.5))
    return resize(resize(small, *middle, mode="nearest"), height, width, mode="bilinear")


def decimated_bicubic(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Decimated without a filter, then enlarged bicubically."""
    return _there_and_back(image, 1.25 * factor, "nearest", "bicubic")


def interlaced(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Every other line or few lines held, as a bad deinterlacer leaves them."""
    height = image.shape[-2]
    hold = max(2, round(factor))
    rows = (torch.arange(height, device=image.device) // hold * hold).clamp(max=height - 1)
    return image[:, rows, :]
