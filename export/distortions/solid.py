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
