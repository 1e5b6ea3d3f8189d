"""One form of a kernel to compile: its types, its constants, and how it is launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

FLOATS: Final[Mapping[str, torch.dtype]] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""What activations are held in, by Triton's name."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel with everything fixed that is fixed at compile time.

    name: what an engine asks for it by. kernel: the Triton function. types: Triton's type of each
    argument in order ("*fp16", "i32", ...); "i32:16" is an i32 that 16 divides. Pointers are
    aligned to 16 bytes, as every allocation is. constants: values of the constexpr arguments, which
    come last. warps, stages: as Triton means them. streamed: bytes of weights, or of keys and
    values, that a turn of the loop reads; 0 where that is not what takes the time.
    """

    name: str
    kernel: Callable[..., Any]
    types: Mapping[str, str]
    constants: Mapping[str, int | str | bool]
    warps: int = 4
    stages: int = 2
    streamed: int = 0

    def launch(self, grid: tuple[int, ...], *arguments: object) -> None:
        """Compile at once if need be and run over `grid`, on tensors and integers in order.

        Kernels do not specialise on integers of type "i32", so that this is what an engine runs.
        """
        assert len(arguments) == len(self.types), (self.name, len(arguments))
        # Triton's functions are indexed by their grid; its stubs do not say so.
        kernel: Any = self.kernel
        kernel[grid](*arguments, **self.constants, num_warps=self.warps, num_stages=self.stages)


def ceil_div(count: int, size: int) -> int:
    """How many blocks of `size` cover `count`."""
    return -(-count // size)


def power_of_two(count: int, least: int = 1) -> int:
    """The smallest power of two that is at least `count` and `least`."""
    return max(least, 1 << (count - 1).bit_length())
