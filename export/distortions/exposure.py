"""Underexposure and overexposure: light, gamma, shadows and highlights."""

import torch
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import gaussian_blur, to_display, to_linear


def fewer_stops(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Less light, in photographic stops, in linear light."""
    return to_display(to_linear(image) * 2.0**-stops)


def darker_gamma(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """A power curve that darkens mid tones about as much as `stops` of light would."""
    return image.clamp(0, 1) ** (1 + 0.55 * stops)


def darker_display(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """A plain gain below one on display values."""
    return image * 2.0 ** (-stops / 2)


def crushed_shadows(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Shadows clipped to black and the rest darkened."""
    black = min(0.35, 0.075 * stops)
    lifted = (image - black).clamp(min=0) / (1 - black)
    return lifted * 2.0 ** (-stops / 3)


def lost_light(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Less light and the read noise that shows when there is little."""
    light = to_linear(image) * 2.0**-stops
    return to_display(light + 0.0012 * chance.normal(tuple(image.shape), image))


def more_stops(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """More light, in photographic stops, clipped as a sensor clips."""
    return to_display(to_linear(image) * 2.0**stops)


def lighter_gamma(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """A power curve that lifts everything towards white."""
    lifted = image.clamp(0, 1) ** (1 / (1 + 0.7 * stops))
    return lifted * (1 + 0.08 * stops)


def brighter_display(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """A plain gain above one on display values."""
    return image * 2.0 ** (0.48 * stops)


def washed_highlights(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Highlights pushed to white while shadows keep their place."""
    pivot = chance.uniform(0.1, 0.25)
    above = (image - pivot).clamp(min=0)
    return image + above * (2.0 ** (0.75 * stops) - 1)


def added_offset(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """A constant veil of light added to everything."""
    return image + 0.17 * stops


def bloom(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Clipped highlights that glow into their surroundings."""
    light = to_linear(image) * 2.0**stops
    excess = (light - 0.8).clamp(min=0, max=2)
    glow = gaussian_blur(excess, chance.uniform(4, 10))
    return to_display(torch.clamp(light + 0.5 * glow, 0, 1))


def flat_dark(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Highlights pulled down, blacks milky, as a weak display in the sun shows a picture."""
    shown = image.clamp(0, 1)
    return 0.04 + shown * (1 - 0.3 * shown) / (1 + 0.4 * stops)


def _tinted(image: Tensor, stops: float, spread: float, chance: Chance) -> Tensor:
    """More light by `stops`, in each channel by up to `spread` of them more or less."""
    parts = [chance.uniform(-spread, spread) for _ in range(3)]
    gains = torch.tensor([2.0 ** (stops * (1 + part)) for part in parts], device=image.device)
    return to_display(to_linear(image) * gains[:, None, None])


def tinted_dusk(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Less light of every colour, but not as much of each: a blue or an orange dusk."""
    return _tinted(image, -stops, 0.35, chance)


def screened(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """Blended with white by "screen", as flare and washed-out effects do."""
    light = 1 - 2.0 ** (-0.62 * stops)
    return 1 - (1 - image.clamp(0, 1)) * (1 - light)


def clipped_colours(image: Tensor, stops: float, chance: Chance) -> Tensor:
    """More light of every colour, but not as much of each: one channel burns out first."""
    return _tinted(image, stops, 0.25, chance)
