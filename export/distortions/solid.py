"""Meaningless solid colour: a part of the picture that holds nothing."""

import torch
from torch import Tensor

from export.distortions.chance import Chance


def flat(image: Tensor, strength: float, chance: Chance) -> Tensor:
    """One colour, any."""
    colour = torch.tensor([chance.random() for _ in range(3)], device=image.device)
    return colour[:, None, None].expand_as(image).clone()


def black_or_white(image: Tensor, strength: float, chance: Chance) -> Tensor:
    """Near black, near white or a grey, as bars, lens caps and failed decoders give."""
    value = chance.choice((chance.uniform(0, 0.06), chance.uniform(0.94, 1), chance.random()))
    return torch.full_like(image, value)


def mean_colour(image: Tensor, strength: float, chance: Chance) -> Tensor:
    """The region's own mean colour, its content gone."""
    return image.mean((-2, -1), keepdim=True).expand_as(image).clone()


def picked_colour(image: Tensor, strength: float, chance: Chance) -> Tensor:
    """The colour of one of the region's own pixels, as a painted-over part has."""
    height, width = image.shape[-2:]
    y, x = chance.randrange(height), chance.randrange(width)
    return image[:, y : y + 1, x : x + 1].expand_as(image).clone()


def gradient(image: Tensor, strength: float, chance: Chance) -> Tensor:
    """One colour that turns a little lighter or darker across, as empty backdrops do."""
    height, width = image.shape[-2:]
    colour = torch.tensor([chance.uniform(0.1, 0.9) for _ in range(3)], device=image.device)
    down = torch.linspace(-1, 1, height, device=image.device)[:, None] * chance.uniform(-0.05, 0.05)
    across = torch.linspace(-1, 1, width, device=image.device) * chance.uniform(-0.05, 0.05)
    return colour[:, None, None] + down + across
