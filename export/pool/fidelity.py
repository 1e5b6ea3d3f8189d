"""How much of the original is left: full-reference metrics between clean and spoiled pictures."""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as nn_f
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchmetrics.functional.image import structural_similarity_index_measure


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Full-reference measures; 1 (0 for `tone`) means untouched.

    `ssim_half`, `ssim_quarter`: structural similarity of luma at half and quarter size (Wang et
    al. 2004; the coarser scales of MS-SSIM); `tone`: mean absolute change of local brightness and
    colour, 0..1.
    """

    ssim_half: float
    ssim_quarter: float
    tone: float


def _ssim(pair: Tensor) -> float:
    value = structural_similarity_index_measure(pair[:1], pair[1:], data_range=1.0)
    assert isinstance(value, Tensor)
    return round(float(value), 4)


def fidelity_of(clean: Tensor, spoiled: Tensor) -> Fidelity:
    """Compare two pictures [3, H, W] in 0..1 (structural similarity by torchmetrics)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=clean.device).view(1, 3, 1, 1)
    pair = torch.stack((spoiled, clean))
    half = nn_f.avg_pool2d((pair * weights).sum(1, keepdim=True), 2)
    blocks = nn_f.avg_pool2d(pair, 16)
    tone = round(float((blocks[0] - blocks[1]).abs().mean()), 4)
    return Fidelity(_ssim(half), _ssim(nn_f.avg_pool2d(half, 2)), tone)
