"""What a picture looks like, in the plain terms that descriptions use."""

from dataclasses import dataclass

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.distortions.filters import to_ycc


@dataclass(frozen=True, slots=True)
class Appearance:
    """Global statistics of a picture.

    `light`: mean luma 0..1; `contrast`: standard deviation of luma; `colour`: mean chroma
    magnitude; `warmth`: mean Cr - Cb; `detail`: mean high-frequency magnitude of luma.
    """

    light: float
    contrast: float
    colour: float
    warmth: float
    detail: float


def appearance_of(image: Tensor) -> Appearance:
    """Measure [3, H, W] in 0..1."""
    planes = to_ycc(image)
    luma, chroma = planes[0], planes[1:]
    fine = luma - nn_f.avg_pool2d(luma[None], 3, stride=1, padding=1)[0]
    values = (
        luma.mean(),
        luma.std(),
        torch.hypot(chroma[0], chroma[1]).mean(),
        (chroma[1] - chroma[0]).mean(),
        fine.abs().mean(),
    )
    return Appearance(*(round(float(value), 4) for value in values))
