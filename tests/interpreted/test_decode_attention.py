from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from close import assert_close, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.append import quantized
from kernels.decode_attention import (
    decode_attention,
    members,
    merge,
    merge_variant,
    reference,
    variant,
)
from kernels.variant import FLOATS

Chain = Sequence[tuple[int, int]]
SLOTS = 512


def attend(
    chains: Sequence[Chain],
    heads: int = 2,
    kv_heads: int = 1,
    size: int = 64,
    cache: str = "float",
    floats: str = "fp16",
    chunk: int = 100,
    *,
    share: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of every chain by the kernels, and by the reference."""
    kind, group = FLOATS[floats], heads // kv_heads
    query = noise(len(chains), heads, size, kind=kind)
    keys, values = (noise(kv_heads, SLOTS, size, kind=kind, seed=i) for i in (1, 2))
    held, scales = (keys, values), (torch.ones(kv_heads, SLOTS), torch.ones(kv_heads, SLOTS))
    if cache == "int8":
        held, scales = zip(quantized(keys), quantized(values * 1e-4), strict=True)
        keys, values = (h.double() * s[..., None] for h, s in zip(held, scales, strict=True))
    expected = reference(query, keys, values, chains)

    seen: dict[tuple[int, int], list[int]] = {}
    for row, chain in enumerate(chains):
        for start, count in chain:
            for begin in range(0, count, chunk):
                piece = (start + begin, min(chunk, count - begin))
                seen.setdefault(piece, []).append(row)
    lists: dict[bool, list[list[int]]] = {True: [], False: []}
    rows: list[int] = []
    for (start, count), all_viewers in seen.items():
        shared = share and len(all_viewers) > 1
        most = members(group, shared)
        for begin in range(0, len(all_viewers), most):
            some = all_viewers[begin : begin + most]
            lists[shared].append([start, count, len(rows), len(some)])
            rows += some
    partial = torch.full((len(rows), heads, size), float("nan"))
    weight = torch.full((len(rows), heads), float("nan"))
    for shared, chunks in lists.items():
        if chunks:
            # A list is padded with chunks of no slots, as it is in a captured graph.
            table = torch.tensor([*chunks, [0, 0, 0, 0]], dtype=torch.int32)
            chosen = variant(size, group, cache, shared=shared, floats=floats)
            viewers = torch.tensor(rows, dtype=torch.int32)
            decode_attention(chosen, partial, weight, query, *held, *scales, table, viewers)
    parts = sorted(range(len(rows)), key=lambda part: rows[part])
    counts = torch.bincount(torch.tensor(rows), minlength=len(chains))
    offsets = torch.cat((torch.zeros(1), counts.cumsum(0))).int()
    output = torch.empty_like(query)
    merge(
        merge_variant(size, floats), output, partial, weight, offsets,
        torch.tensor(parts, dtype=torch.int32),
    )  # fmt: skip
    return output, expected


@pytest.mark.parametrize(
    ("size", "group", "cache", "floats"),
    [
        (64, 1, "float", "fp16"),
        (64, 2, "int8", "fp16"),
        (80, 4, "float", "bf16"),
        (128, 8, "int8", "bf16"),
        (128, 7, "float", "fp16"),
    ],
)
def test_sizes_groups_and_types(size: int, group: int, cache: str, floats: str) -> None:
    chains = [[(3, 130), (200, 1)], [(3, 130), (300, 77)], [(400, 1)]]
    got, expected = attend(chains, 2 * group, 2, size, cache, floats)
    assert_close(got, expected, floats)


@pytest.mark.parametrize("forks", [1, 2, 9, 32])
def test_forks_of_one_prefix(forks: int) -> None:
    chains = [[(0, 75), (100 + 8 * i, i % 9)] if i % 9 else [(0, 75)] for i in range(forks)]
    got, expected = attend(chains, 4, 1, cache="int8")
    assert_close(got, expected, "fp16")


def test_what_is_not_a_number_stays_in_its_row() -> None:
    partial, weight = noise(3, 2, 64), torch.zeros(3, 2)
    partial[0], weight[0, 0] = float("nan"), float("inf")
    output = torch.empty(2, 2, 64, dtype=torch.float16)
    offsets, parts = torch.tensor([0, 1, 3]).int(), torch.tensor([0, 1, 2]).int()
    merge(merge_variant(64), output, partial, weight, offsets, parts)
    assert not torch.isfinite(output[0, 0]).any()
    assert_close(output[1], (partial[1] + partial[2]) / 2, "fp16")


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_any_number_of_parts_is_merged(count: int) -> None:
    partial, weight = noise(count, 1, 80), noise(count, 1, seed=9) * 5
    output = torch.empty(1, 1, 80, dtype=torch.float16)
    offsets, parts = torch.tensor([0, count]).int(), torch.randperm(count).int()
    merge(merge_variant(80), output, partial, weight, offsets, parts)
    share = torch.softmax(weight.double() * 0.6931471805599453, dim=0)
    assert_close(output[0], (partial.double() * share[..., None]).sum(0), "fp16")


def test_a_prefix_of_one_token_and_forks_of_forks() -> None:
    stem, middle = (17, 1), (40, 33)
    chains = [[stem], [stem, (60, 2)], [stem, middle, (90, 1)], [stem, middle, (120, 65)]]
    got, expected = attend(chains)
    assert_close(got, expected, "fp16")


def test_scores_far_apart_stay_finite() -> None:
    chains: list[Chain] = [[(0, 70), (100, 10)]]
    query = torch.full((1, 1, 64), 200.0, dtype=torch.float16)
    keys = noise(1, SLOTS, 64, kind=torch.float16) * 40
    values = noise(1, SLOTS, 64, kind=torch.float16, seed=3)
    scales = torch.ones(1, SLOTS)
    partial, weight = torch.empty(2, 1, 64), torch.empty(2, 1)
    table = torch.tensor([[0, 70, 0, 1], [100, 10, 1, 1]], dtype=torch.int32)
    rows = torch.zeros(2, dtype=torch.int32)
    chosen = variant(64, 1, "float", shared=False)
    decode_attention(chosen, partial, weight, query, keys, values, scales, scales, table, rows)
    output = torch.empty_like(query)
    order = torch.tensor([0, 1], dtype=torch.int32)
    merge(
        merge_variant(64), output, partial, weight, torch.tensor([0, 2], dtype=torch.int32), order
    )
    assert_close(output, reference(query, keys, values, chains), "fp16")


@settings(max_examples=5, deadline=None)
@given(
    st.integers(1, 150),
    st.lists(st.integers(0, 40), min_size=2, max_size=6),
    st.integers(16, 80),
)
def test_sharing_changes_nothing(prefix: int, tails: list[int], chunk: int) -> None:
    """However a prefix is cut, and whether rows read it together or apart, the answer is one."""
    chains = [
        [(0, prefix), *([(160 + 40 * i, tail)] if tail else [])] for i, tail in enumerate(tails)
    ]
    together, expected = attend(chains, chunk=chunk)
    apart, _ = attend(chains, chunk=chunk, share=False)
    assert_close(together, expected, "fp16")
    assert_close(apart, expected, "fp16")
