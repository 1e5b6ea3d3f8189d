from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from close import assert_close, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.append import quantized
from kernels.prefill_attention import QUERIES, prefill_attention, reference, variant
from kernels.variant import FLOATS

EVERYTHING = 2**30


def attend(
    tokens: int,
    blocks: list[list[int]],
    runs: list[list[int]],
    group: int = 1,
    size: int = 64,
    cache: str = "float",
    floats: str = "fp16",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by the kernel and by the reference; queries outside of all blocks stay zero."""
    kind = FLOATS[floats]
    query = noise(tokens, group, size, kind=kind)
    keys, values = (noise(1, 256, size, kind=kind, seed=i) for i in (1, 2))
    held, scales = (keys, values), (torch.ones(1, 256), torch.ones(1, 256))
    if cache == "int8":
        held, scales = zip(quantized(keys), quantized(values * 1e-4), strict=True)
        keys, values = (h.double() * s[..., None] for h, s in zip(held, scales, strict=True))
    output = torch.zeros_like(query)
    tables = (torch.tensor(table, dtype=torch.int32) for table in (blocks, runs))
    prefill_attention(variant(size, cache, floats), output, query, *held, *scales, *tables)
    return output, reference(query, keys, values, blocks, runs)


def causal(past: int, new: int) -> list[list[int]]:
    """Blocks of `new` queries behind `past` keys of a chain of two runs."""
    return [
        [first, min(QUERIES, new - first), past + first + 1, 0, 2]
        for first in range(0, new, QUERIES)
    ]


@pytest.mark.parametrize(
    ("size", "group", "cache", "floats"),
    [(64, 2, "int8", "fp16"), (80, 1, "float", "bf16"), (128, 3, "int8", "bf16")],
)
def test_prefill_behind_a_prefix(size: int, group: int, cache: str, floats: str) -> None:
    got, expected = attend(70, causal(37, 70), [[150, 37], [5, 70]], group, size, cache, floats)
    assert_close(got, expected, floats)


@pytest.mark.parametrize(("past", "new"), [(1, 1), (65, 2)])
def test_short_runs(past: int, new: int) -> None:
    got, expected = attend(new, causal(past, new), [[100, past], [0, new]])
    assert_close(got, expected, "fp16")


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_windows_see_themselves_alone(lengths: list[int]) -> None:
    ends = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    runs = [[first, last - first] for first, last in pairwise(ends)]
    blocks = [[first, count, EVERYTHING - 64, i, 1] for i, (first, count) in enumerate(runs)]
    got, expected = attend(ends[-1], blocks, runs, size=80)
    assert_close(got, expected, "fp16")
