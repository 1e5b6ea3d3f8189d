"""Edge ringing: halos and ripples along edges."""

import torch
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import convolve, gaussian_blur, to_display, to_linear


def oversharpened(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """Unsharp masking overdone: bright and dark halos a few pixels wide."""
    radius = chance.uniform(1.2, 2.6)
    return image + 1.6 * amount * (image - gaussian_blur(image, radius))


def wide_halo(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """Sharpened with a wide radius, in luma or in all channels: broad glowing rims."""
    detail = image - gaussian_blur(image, chance.uniform(2.6, 5.0))
    if chance.random() < 0.5:
        detail = detail.mean(0, keepdim=True)
    return image + 1.1 * amount * detail


def sharpened_twice(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """Sharpened in the camera and again afterwards, clipped in between: thin doubled rims."""
    for radius in (chance.uniform(0.7, 1.2), chance.uniform(1.3, 2.2)):
        image = (image + 0.8 * amount * (image - gaussian_blur(image, radius))).clamp(0, 1)
    return image


def difference_halo(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """A band of middle frequencies boosted: a double halo beside each edge."""
    width = chance.uniform(1.0, 1.8)
    band = gaussian_blur(image, width) - gaussian_blur(image, 2.2 * width)
    return image + 2.6 * amount * band


def _low_pass(image: Tensor, cutoff: float, order: float) -> Tensor:
    height, width = image.shape[-2:]
    mirrored = torch.cat((image, image.flip(-1)), -1)
    mirrored = torch.cat((mirrored, mirrored.flip(-2)), -2)
    fy = torch.fft.fftfreq(2 * height, device=image.device)[:, None]
    fx = torch.fft.rfftfreq(2 * width, device=image.device)[None, :]
    gain = 1 / (1 + (torch.hypot(fy, fx) / cutoff) ** order)
    spectrum = torch.fft.rfft2(mirrored) * gain
    return torch.fft.irfft2(spectrum, s=mirrored.shape[-2:])[..., :height, :width]


def band_limited(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """A sharp frequency cut-off (Gibbs): ripples that run away from edges."""
    return _low_pass(image, cutoff=0.24 / (0.55 + 0.6 * amount), order=chance.uniform(24, 60))


def resonant(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """A cut-off with overshoot: the limit's ripples made stronger, as codecs and scalers do."""
    limited = _low_pass(image, cutoff=0.2 / (0.7 + 0.3 * amount), order=40)
    return limited + 0.9 * amount * (limited - gaussian_blur(limited, 2.0))


def sharpened_light(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """Sharpened in linear light, where dark rims are deep and bright ones spread."""
    light = to_linear(image)
    detail = light - gaussian_blur(light, chance.uniform(1.0, 3.0))
    return to_display(light + 1.1 * amount * detail)


def truncated_sinc(image: Tensor, amount: float, chance: Chance) -> Tensor:
    """A scaler with a sinc cut short, along rows and columns by themselves: a lattice."""
    cutoff = 0.42 / (1.1 + 0.75 * amount)
    axis = torch.arange(-chance.randint(9, 16), 0, dtype=torch.float32)
    axis = torch.cat((axis, torch.zeros(1), -axis.flip(0)))
    line = torch.sinc(2 * cutoff * axis)
    line = line / line.sum()
    return convolve(image, line[:, None] * line[None, :])
