"""How close a kernel must come to its reference, by the type that it rounds to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

RATIOS: Final[Mapping[str, float]] = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1.2e-2, "int8": 2e-2}
"""Largest root mean square of the error, over that of the reference."""


def assert_close(got: torch.Tensor, expected: torch.Tensor, kind: str) -> None:
    """Compare in float64; any NaN or infinity fails."""
    got, expected = got.double(), expected.double()
    assert got.shape == expected.shape
    assert torch.isfinite(got).all(), "the kernel gave NaN or infinity"
    assert torch.isfinite(expected).all(), "the reference gave NaN or infinity"
    error = (got - expected).square().mean().sqrt()
    ratio = float(error / expected.square().mean().sqrt().clamp_min(1e-12))
    assert ratio <= RATIOS[kind], f"RMS error ratio {ratio:.2e} is above {RATIOS[kind]:.0e}"


def noise(*shape: int, kind: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Normal random numbers, the same each time."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(kind)
