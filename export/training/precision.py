"""The number format that training computes in: bfloat16 where this processor is faster with it.

What a processor says of itself does not tell: of two with instructions for bfloat16 (AVX512-BF16)
one did 77 GFLOP/s with it and 100 in float32, the other 490 and 97. So both are tried, once.
"""

import time
from functools import cache
from typing import Final

import torch

_SIDE: Final = 512
_TRIALS: Final = 5
_WORTHWHILE: Final = 1.2
"""What bfloat16 gives must outweigh the conversions it needs."""


def seconds_for(dtype: torch.dtype) -> float:
    """The shortest time that a product of two 512 x 512 matrices took, in seconds."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    times: list[float] = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - began)
    return min(times)


@cache
def bfloat16_pays() -> bool:
    """Whether matrix products are clearly faster in bfloat16 here; tried once in a process."""
    return seconds_for(torch.float32) > _WORTHWHILE * seconds_for(torch.bfloat16)


def autocast() -> torch.autocast:
    """A context in which matrix products are computed in bfloat16 where that is faster."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays())
