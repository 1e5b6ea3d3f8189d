from __future__ import annotations

import pytest
import torch
from close import assert_close, noise
from hypothesis import given, settings
from hypothesis import strategies as st

from idetex_edge.positions import mrope_rotary
from kernels.append import append, quantized, reference, variant
from kernels.variant import FLOATS


def run(
    tokens: int, heads: int, kv_heads: int, size: int, cache: str, floats: str, slots: list[int]
) -> tuple[torch.Tensor, ...]:
    """Append random tokens; returns what the kernel wrote and what it was given."""
    kind = FLOATS[floats]
    sections = (size // 2 - 2 * (size // 6), size // 6, size // 6)
    rng = torch.Generator().manual_seed(tokens)
    positions = torch.randint(0, 50, (3, tokens), generator=rng, dtype=torch.int32)
    table = torch.arange(50).expand(3, 50).numpy()
    cos, sin = (
        torch.from_numpy(part).contiguous()
        for part in mrope_rotary(table, head_size=size, sections=sections, theta=1e4)
    )
    qkv = noise(tokens, (heads + 2 * kv_heads) * size, kind=kind)
    held = torch.int8 if cache == "int8" else kind
    keys, values = (torch.full((kv_heads, 64, size), 7, dtype=held) for _ in range(2))
    scales = (torch.full((kv_heads, 64), 7.0), torch.full((kv_heads, 64), 7.0))
    query = torch.empty(tokens, heads, size, dtype=kind)
    where = torch.tensor(slots, dtype=torch.int32)
    chosen = variant(size, cache, floats)
    append(chosen, query, keys, values, *scales, qkv, cos, sin, positions, where, sections)
    expected = reference(qkv, cos, sin, positions, sections, heads, kv_heads)
    # The angles that the rest of the project computes for the same positions.
    c, s = mrope_rotary(positions.long().numpy(), head_size=size, sections=sections, theta=1e4)
    rows = torch.arange(tokens, dtype=torch.int32).expand(3, tokens)
    direct = torch.from_numpy(c), torch.from_numpy(s)
    same = reference(qkv, *direct, rows, sections, heads, kv_heads)
    torch.testing.assert_close(same[0], expected[0])
    return query, keys, values, *scales, *expected


@pytest.mark.parametrize("floats", FLOATS)
@pytest.mark.parametrize(("size", "heads", "kv_heads"), [(64, 4, 2), (80, 1, 1), (128, 8, 1)])
def test_queries_keys_and_values(size: int, heads: int, kv_heads: int, floats: str) -> None:
    slots = [5, 63, 0]
    query, keys, values, _, _, *expected = run(3, heads, kv_heads, size, "float", floats, slots)
    assert_close(query, expected[0], floats)
    assert_close(keys[:, slots].transpose(0, 1), expected[1], floats)
    assert_close(values[:, slots].transpose(0, 1), expected[2], floats)


@pytest.mark.parametrize("size", [64, 80, 128])
def test_int8_is_the_nearest_level(size: int) -> None:
    slots = [1, 2]
    _, keys, values, key_scales, value_scales, _, k, v = run(2, 2, 1, size, "int8", "fp16", slots)
    for got, scale, expected in ((keys, key_scales, k), (values, value_scales, v)):
        levels, steps = quantized(expected)
        torch.testing.assert_close(scale[:, slots].T, steps, rtol=1e-5, atol=0)
        difference = (got[:, slots].transpose(0, 1).int() - levels.int()).abs()
        # Sums in another order may fall on the other side of a half.
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) < 0.02
        restored = got[:, slots].transpose(0, 1).double() * scale[:, slots].T.double()[..., None]
        assert_close(restored, expected, "int8")


def test_a_row_of_zeros_has_scale_one() -> None:
    levels, scale = quantized(torch.zeros(2, 8))
    assert not levels.any()
    assert (scale == 1).all()


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(0, 63), min_size=1, max_size=4, unique=True), st.booleans())
def test_only_the_slots_given_are_written(slots: list[int], whole: bool) -> None:
    cache = "int8" if whole else "float"
    _, keys, values, *scales = run(len(slots), 2, 1, 64, cache, "fp16", slots)[:5]
    others = [slot for slot in range(64) if slot not in slots]
    for tensor in (keys, values, *scales):
        assert (tensor[:, others] == 7).all()
