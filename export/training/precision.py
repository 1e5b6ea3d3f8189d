"""The number format that training computes in: bfloat16 where this processor is faster with it.

It is with matrix units for it (AMX), several times. Instructions for it (AVX512-BF16) are not
enough: an Intel core did 77 GFLOP/s by them and 100 in float32, an AMD one (Zen 5) 490 and 97. It
goes by the processor alone, not by a trial, so that processes and restarts agree.
"""

from typing import Final

import torch

_FULL_RATE: Final = "AMD"
"""How the names begin of processors whose AVX512-BF16 is twice as wide as their float32."""


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than those of float32."""
    capabilities = torch.cpu.get_capabilities()
    named = str(capabilities.get("cpu_name", ""))
    by_vectors = bool(capabilities.get("avx512_bf16", False)) and named.startswith(_FULL_RATE)
    return bool(capabilities.get("amx_bf16", False)) or by_vectors


def autocast() -> torch.autocast:
    """A context in which matrix products are computed in bfloat16 where that is faster."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16())
