"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").

`torch.optim.Muon` is the same, but always iterates in bfloat16, which a processor without
instructions for it multiplies a hundred times slower than float32.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

from export.training.precision import has_fast_bfloat16

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
_LEAST: Final = 1e-7
_RMS: Final = 0.2
"""The root mean square of AdamW's updates."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, for parameters that are matrices.

    Updates are scaled to AdamW's root mean square (Liu et al. 2025, "Muon is Scalable for LLM
    Training"), so that both take one rate. `groups` are those of torch's optimisers; each wants
    an `lr` before the first step.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], weight_decay: float, momentum: float
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient; nothing here evaluates closures."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                update = orthogonal(parameter.grad.lerp(mean, momentum))
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-rate * _RMS * math.sqrt(max(parameter.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix [M, N] with singular values brought near 1 (0.7 to 1.2), by Newton-Schulz.

    Those below some hundredths of its norm stay smaller. In bfloat16 where that is fast, else in
    float32.
    """
    found = matrix.to(torch.bfloat16 if has_fast_bfloat16() else torch.float32)
    upright = matrix.shape[0] > matrix.shape[1]
    found = found.T if upright else found
    found = found / found.norm().clamp(min=_LEAST)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if upright else found
