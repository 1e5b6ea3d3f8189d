"""Seeded randomness for one picture, the same on every run and device."""

import math
from random import Random

import torch
from torch import Tensor


class Chance(Random):
    """Python's Random that can also fill tensors.

    Numbers are drawn on the CPU, so that a seed means the same picture on every device.
    """

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal samples of `shape`, on the device of `like`."""
        return torch.randn(shape, generator=self._generator()).to(like.device)

    def uniform_tensor(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Samples in [0, 1) of `shape`, on the device of `like`."""
        return torch.rand(shape, generator=self._generator()).to(like.device)

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts with the given rates (any shape)."""
        return torch.poisson(rate.cpu(), generator=self._generator()).to(rate.device)

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform between those of `low` and `high`."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.getrandbits(62))
