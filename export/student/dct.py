"""First weights of the patch embedding: a DCT basis instead of noise.

A small tower that starts from random kernels learns exposure and flat colour and little else;
one that starts from frequencies sees blur, noise and ringing from the first step. Kernels are
scaled so that natural pictures, whose spectrum falls about as 1/f, give outputs of unit variance.
"""

import math

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_LUMA_SHARE = 0.78
_DC_STD = 0.5
_AC_STD = 0.22
_LUMA_FALL = 1.6
_CHROMA_STD = 0.08


def _basis(side: int) -> list[tuple[float, Tensor]]:
    """(frequency, kernel [side, side]) of the orthonormal 2-D DCT-II, low frequencies first."""
    position = torch.arange(side, dtype=torch.float64)
    lines = torch.cos(math.pi * (2 * position[None, :] + 1) * position[:, None] / (2 * side))
    lines[0] /= math.sqrt(2)
    lines *= math.sqrt(2 / side)
    found = [
        (math.hypot(u, v), torch.outer(lines[u], lines[v]))
        for u in range(side)
        for v in range(side)
    ]
    return sorted(found, key=lambda item: item[0])


def dct_patch_kernels(count: int, side: int) -> Tensor:
    """`count` kernels [count, 3, side, side]: about four fifths luma, the rest Cb and Cr.

    Inputs are expected in -1..1.
    """
    basis = _basis(side)
    luma_count = min(len(basis), round(count * _LUMA_SHARE))
    kernels: list[Tensor] = []
    for frequency, kernel in basis[:luma_count]:
        spread = side * (_AC_STD if frequency else _DC_STD) / (1 + frequency) ** _LUMA_FALL
        kernels.append(torch.tensor(_LUMA, dtype=torch.float64)[:, None, None] * kernel / spread)
    for index in range(count - luma_count):
        frequency, kernel = basis[index // 2]
        weights = torch.tensor(_CHROMA[index % 2], dtype=torch.float64)
        spread = side * _CHROMA_STD / (1 + frequency) ** _LUMA_FALL
        kernels.append(weights[:, None, None] * kernel / spread)
    return torch.stack(kernels).float()
