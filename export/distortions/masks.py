"""Where a distortion acts: regions of a picture, hard or soft, rectangular or object-like."""

import math

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import gaussian_blur

_SMALLEST = 44


def _extent(length: int, chance: Chance) -> tuple[int, int]:
    """A random stretch of an axis of `length` pixels; a third of them touch one of its ends."""
    size = min(length, max(_SMALLEST, round(length * chance.uniform(0.22, 0.85))))
    free = length - size
    start = chance.choice((0, free, *(chance.randint(0, free) for _ in range(4))))
    return start, start + size


def rectangle(height: int, width: int, chance: Chance) -> Tensor:
    """A plain rectangle."""
    mask = torch.zeros(height, width)
    (top, bottom), (left, right) = _extent(height, chance), _extent(width, chance)
    mask[top:bottom, left:right] = 1
    return mask


def ellipse(height: int, width: int, chance: Chance) -> Tensor:
    """An ellipse or a rounded rectangle (a superellipse of random order)."""
    (top, bottom), (left, right) = _extent(height, chance), _extent(width, chance)
    order = chance.uniform(2, 6)
    y = (torch.arange(height) - (top + bottom - 1) / 2).abs() / ((bottom - top) / 2)
    x = (torch.arange(width) - (left + right - 1) / 2).abs() / ((right - left) / 2)
    return ((y[:, None] ** order + x[None, :] ** order) <= 1).float()


def blob(height: int, width: int, chance: Chance) -> Tensor:
    """An object-like shape: an outline whose radius varies smoothly with the angle."""
    (top, bottom), (left, right) = _extent(height, chance), _extent(width, chance)
    y = (torch.arange(height) - (top + bottom - 1) / 2) / ((bottom - top) / 2)
    x = (torch.arange(width) - (left + right - 1) / 2) / ((right - left) / 2)
    radius = torch.hypot(y[:, None], x[None, :])
    angle = torch.atan2(y[:, None], x[None, :])
    outline = torch.full_like(angle, 0.85)
    for lobes in range(1, 5):
        amount, phase = chance.uniform(0, 0.22 / lobes), chance.uniform(0, 2 * math.pi)
        outline = outline + amount * torch.cos(lobes * angle + phase)
    return (radius <= outline).float()


def border(height: int, width: int, chance: Chance) -> Tensor:
    """A bar along one side of the picture."""
    mask = torch.zeros(height, width)
    share = chance.uniform(0.12, 0.5)
    if chance.random() < 0.5:
        rows = max(_SMALLEST, round(height * share))
        mask[:rows] = 1
        return mask.flip(0) if chance.random() < 0.5 else mask
    columns = max(_SMALLEST, round(width * share))
    mask[:, :columns] = 1
    return mask.flip(1) if chance.random() < 0.5 else mask


def band(height: int, width: int, chance: Chance) -> Tensor:
    """A band or half of the picture, across its whole width or height."""
    mask = torch.zeros(height, width)
    if chance.random() < 0.5:
        top, bottom = _extent(height, chance)
        mask[top:bottom] = 1
    else:
        left, right = _extent(width, chance)
        mask[:, left:right] = 1
    return mask


def soften(mask: Tensor, chance: Chance) -> Tensor:
    """Sometimes feather the edge by up to ten pixels."""
    if chance.random() < 0.5:
        return mask
    return gaussian_blur(mask[None], chance.uniform(1, 5))[0].clamp(0, 1)


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """The tight box (x1, y1, x2, y2) in pixels around where the mask is over one half."""
    inside = mask > 0.5
    rows = torch.nonzero(inside.any(1)).flatten()
    columns = torch.nonzero(inside.any(0)).flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def coverage(mask: Tensor, rows: int, columns: int) -> Tensor:
    """The share of each cell of a rows x columns grid that the mask [H, W] covers."""
    return nn_f.adaptive_avg_pool2d(mask[None, None], (rows, columns))[0, 0]
