"""The number format that training computes in: bfloat16 where this processor is faster with it.

With matrix units for it (AMX) bfloat16 is several times as fast as float32. Without them it is
slower, even with instructions for it: 77 against 100 GFLOP/s on an AVX-512 core with AVX512-BF16.
"""

import torch


def has_matrix_units() -> bool:
    """Whether this processor multiplies bfloat16 matrices in units of their own."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def autocast() -> torch.autocast:
    """A context in which matrix products are computed in bfloat16 where that is faster."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_matrix_units())
