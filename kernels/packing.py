"""Weights to INT4 as `kernels.linear` reads them."""

from __future__ import annotations

import torch

from kernels.linear import GRAIN


def pack_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round [N, K] to INT4 by groups of 64 inputs: uint8 [N, K / 2] and scales float32 [N, K / 64].

    Symmetric, -7..7; a group's scale is its max|w| / 7, and 1 where all are zero.
    """
    groups = weight.double().reshape(len(weight), -1, GRAIN)
    top = groups.abs().amax(-1)
    scale = torch.where(top > 0, top / 7, torch.ones_like(top))
    levels = (groups / scale[..., None]).round().to(torch.int32) + 8
    low, high = levels.chunk(2, dim=-1)
    return (low | (high << 4)).to(torch.uint8).reshape(len(weight), -1), scale.float()
