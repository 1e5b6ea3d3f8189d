"""GPUs that kernels are built for, and what a program may use there: data, no code.

Source: compute capability tables of the CUDA C++ Programming Guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SHARED_LIMITS: Final[Mapping[str, int]] = {
    "sm_80": 166_912,  # A100
    "sm_86": 101_376,  # RTX 30
    "sm_87": 166_912,  # Jetson Orin
    "sm_89": 101_376,  # RTX 40, L4
    "sm_90": 232_448,  # H100
    "sm_110": 232_448,  # Jetson Thor; needs Triton 3.7, whose assembler is the first to know it
    "sm_120": 101_376,  # RTX 50
}
"""Most shared memory of one program, bytes."""
