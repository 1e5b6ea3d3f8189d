"""Low clarity: detail lost to small sizes, veils, smoothing and old media."""

import torch
import torch.nn.functional as nn_f
from PIL.Image import Resampling
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import convolve, from_ycc, gaussian_blur, resize, to_ycc
from export.distortions.resampling import resize_by, smaller, there_and_back

_STRIP = 32
"""Rows of which all neighbourhoods are in memory at once."""


def bicubic_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk `factor` times and enlarged again, bicubic."""
    return there_and_back(image, factor, "bicubic", "bicubic")


def bilinear_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk by area averaging and enlarged bilinearly."""
    return there_and_back(image, factor, "area", "bilinear")


def soft_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk, enlarged and softened once more, with some contrast lost."""
    soft = gaussian_blur(there_and_back(image, 0.8 * factor + 0.2, "area", "bicubic"), 0.7)
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
    middle = smaller(image, factor**first)
    small = resize(resize(image, *middle, mode="bilinear"), *smaller(image, factor), mode="area")
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


def windowed_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk and enlarged by an editor's windowed filters: Lanczos or Hamming."""
    height, width = image.shape[-2:]
    down, up = (chance.choice((Resampling.LANCZOS, Resampling.HAMMING)) for _ in range(2))
    return resize_by(resize_by(image, *smaller(image, factor), down), height, width, up)


def rimmed_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk, and enlarged by a filter that overshoots: soft, with faint rims."""
    height, width = image.shape[-2:]
    down = chance.choice((Resampling.BILINEAR, Resampling.BICUBIC, Resampling.HAMMING))
    small = resize_by(image, *smaller(image, factor), down)
    if chance.random() < 0.5:
        return resize(small, height, width, mode="bicubic")
    return resize_by(small, height, width, Resampling.LANCZOS)


def uneven_upscale(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """Shrunk more one way than the other and enlarged again, as anamorphic video is."""
    height, width = image.shape[-2:]
    factors = [factor, max(1.0, chance.uniform(0.45, 0.8) * factor)]
    chance.shuffle(factors)
    rows, columns = smaller(image, factors[0])[0], smaller(image, factors[1])[1]
    return resize(resize(image, rows, columns, mode="area"), height, width, mode="bilinear")


def median_smoothed(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """A median filter gone too far: texture flattened into patches, outlines kept."""
    side = 2 * round(0.45 * factor + 0.3) + 1
    padded = nn_f.pad(image[None], (side // 2,) * 4, mode="replicate")[0]
    height = image.shape[-2]
    strips: list[Tensor] = []
    for top in range(0, height, _STRIP):
        rows = padded[:, top : top + _STRIP + side - 1]
        windows = rows.unfold(1, side, 1).unfold(2, side, 1).flatten(-2)
        strips.append(windows.median(-1).values)
    return torch.cat(strips, dim=1)


def smeared_chroma(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """An analogue tape: luma soft, colour far softer along its lines, and shifted."""
    planes = to_ycc(image)
    height, width = image.shape[-2:]
    luma = there_and_back(planes[:1], 0.85 * factor, "bilinear", "bicubic")
    along = max(4, round(width / (3 * factor)))
    chroma = resize(resize(planes[1:], height, along, "area"), height, width, "bilinear")
    shift = round(factor)
    late = nn_f.pad(chroma[None], (shift, 0, 0, 0), mode="replicate")[0, ..., :width]
    return from_ycc(torch.cat((luma, late)))


def faded(image: Tensor, factor: float, chance: Chance) -> Tensor:
    """An old print: contrast gone, blacks lifted, outlines soft, a tint over all of it."""
    kept = max(0.25, 1.08 - 0.2 * factor)
    grey = chance.uniform(0.45, 0.7)
    tint = torch.tensor([chance.uniform(-0.05, 0.05) for _ in range(3)], device=image.device)
    flat = grey + tint[:, None, None] + kept * (image - grey)
    return there_and_back(flat, 0.5 + 0.55 * factor, "bilinear", "bilinear")
