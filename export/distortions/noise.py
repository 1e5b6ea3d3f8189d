"""Noise: what sensors, film and transmission add."""

import torch
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.compression import jpeg
from export.distortions.filters import (
    convolve,
    from_ycc,
    gaussian_blur,
    resize,
    to_display,
    to_linear,
    to_ycc,
)


def gaussian(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Independent Gaussian noise in every channel; sigma relative to full scale."""
    return image + sigma * chance.normal(tuple(image.shape), image)


def luma(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """The same noise in all three channels: grey grain."""
    return image + sigma * chance.normal((1, *image.shape[1:]), image)


def poisson(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Photon noise whose deviation is `sigma` at mid grey and grows with the square root."""
    photons = 0.5 / sigma**2
    return chance.poisson(image.clamp(0, 1) * photons) / photons


def chroma(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Coloured blotches: chroma noise one to two pixels wide, and a little luma noise."""
    planes = to_ycc(image)
    blotches = chance.normal((2, *image.shape[1:]), image)
    width = chance.uniform(0.6, 1.6)
    blotches = gaussian_blur(blotches, width)
    grain = chance.normal((1, *image.shape[1:]), image)
    added = torch.cat((0.3 * sigma * grain, 0.8 * sigma * blotches / blotches.std()))
    return from_ycc(planes + added)


def sensor(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Shot and read noise in linear light, with faint row banding, as at high ISO."""
    light = to_linear(image)
    shot = light.clamp(min=0).sqrt() * chance.normal(tuple(image.shape), image)
    read = chance.normal(tuple(image.shape), image)
    rows = chance.normal((image.shape[0], image.shape[1], 1), image)
    return to_display(light + sigma * (0.9 * shot + 0.25 * read + 0.08 * rows))


def demosaiced(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Noise of a Bayer sensor, spread by bilinear demosaicing; green is twice as dense."""
    height, width = image.shape[-2:]
    mosaic = torch.zeros(3, height, width, device=image.device)
    mosaic[0, 0::2, 0::2] = mosaic[2, 1::2, 1::2] = 1
    mosaic[1, 0::2, 1::2] = mosaic[1, 1::2, 0::2] = 1
    spread = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    noise = mosaic * chance.normal((1, height, width), image)
    return image + 1.3 * sigma * convolve(noise, spread) / convolve(mosaic, spread)


def enlarged(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Noise of a smaller picture, grey or coloured, made coarse by enlarging it."""
    height, width = image.shape[-2:]
    factor = chance.uniform(1.2, 2.2)
    shape = (chance.choice((1, 3)), max(2, round(height / factor)), max(2, round(width / factor)))
    coarse = resize(chance.normal(shape, image), height, width, mode="bicubic")
    return image + sigma * coarse / coarse.std()


def transmitted(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Gaussian noise, grey or coloured, that went through a JPEG good enough to keep most of it."""
    channels = chance.choice((1, 3))
    noisy = image + 1.1 * sigma * chance.normal((channels, *image.shape[1:]), image)
    return jpeg(noisy, chance.uniform(60, 90), chance)


def film_grain(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Soft grain a little wider than a pixel, strongest in the mid tones."""
    grain = gaussian_blur(chance.normal((1, *image.shape[1:]), image), chance.uniform(0.5, 0.9))
    tone = 0.4 + 2.4 * (image * (1 - image)).mean(0, keepdim=True)
    return image + 1.1 * sigma * tone * grain / grain.std()


def speckle(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Multiplicative noise."""
    return image * (1 + 2 * sigma * chance.normal(tuple(image.shape), image))


def impulse(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Dead and hot pixels: a share of sigma^2 x 4 of them turned black or white."""
    dice = chance.uniform_tensor((1, *image.shape[1:]), image)
    share = 4 * sigma**2
    spoiled = torch.where(dice < share / 2, torch.zeros_like(image), image)
    return torch.where(dice > 1 - share / 2, torch.ones_like(image), spoiled)


def shadow_noise(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Lifted shadows: noise that is strong in the dark and fades towards white."""
    brightness = to_ycc(image)[:1].clamp(0, 1)
    tone = 0.35 + 1.5 * (1 - brightness) ** 2
    grain = chance.normal((chance.choice((1, 3)), *image.shape[1:]), image)
    return image + sigma * tone * grain


def fixed_pattern(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """A cheap sensor's rows or columns, each with its own offset, and some noise between them."""
    height, width = image.shape[-2:]
    shape = (1, height, 1) if chance.random() < 0.5 else (1, 1, width)
    lines = chance.normal(shape, image)
    return image + sigma * (0.7 * lines + 0.6 * chance.normal((1, height, width), image))


def dithered(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Few levels of grey or colour with random dither, as indexed pictures and fax have."""
    step = 3.4 * sigma
    dice = chance.uniform_tensor((chance.choice((1, 3)), *image.shape[1:]), image)
    return torch.floor(image / step + dice) * step


def half_denoised(image: Tensor, sigma: float, chance: Chance) -> Tensor:
    """Coarse remains of a denoiser: noise of two widths, in patches where it gave up."""
    size = (1, *image.shape[1:])
    fine, coarse = (
        gaussian_blur(chance.normal(size, image), width)
        for width in (chance.uniform(0.3, 0.5), chance.uniform(1.0, 1.8))
    )
    left = gaussian_blur(chance.normal(size, image), chance.uniform(6, 14))
    patches = 0.7 + 0.3 * (left / left.std()).clamp(-1.5, 1.5)
    grain = fine / fine.std() + chance.uniform(0.3, 0.9) * coarse / coarse.std()
    return image + sigma * patches * grain
