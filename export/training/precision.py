"""The number format that training computes in: bfloat16 where this processor is faster with it.

With matrix units for it (AMX) bfloat16 is several times as fast as float32; a processor without
them may have instructions for it that are slower.
"""

import time
from functools import cache
from typing import Final

import torch

_SIDE: Final = 512
_TRIES: Final = 5


def _seconds(dtype: torch.dtype) -> float:
    """The shortest time of a matrix product."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    times: list[float] = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def bfloat16_is_faster() -> bool:
    """Whether a matrix product takes less time in bfloat16 than in float32, as measured once."""
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def autocast() -> torch.autocast:
    """A context in which matrix products are computed in bfloat16 where that is faster."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_faster())
