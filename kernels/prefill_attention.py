"""Attention of runs of new tokens over a KV cache: prefill behind any prefix, and vision windows.

Queries are cut into *blocks* of at most 64. A block sees a chain of *runs* of slots (the prefix
that a fork continues, its own tail, the new tokens at its end), up to a limit: its i-th query sees
the first `limit + i` keys of the chain. That is causal attention when `limit` counts the keys up to
the block's first query, that one included, and full attention when it is larger than any chain:
then a chain is a window of a picture, and blocks of different windows run side by side.

For n queries, H heads over K key-value heads of size D, C slots, B blocks, R runs:

    query         float [n, H, D]
    keys, values  int8 or float [K, C, D], with key_scales, value_scales float32 [K, C] where int8
    blocks        int32 [B, 5]    first query, queries, limit, first run, runs
    runs          int32 [R, 2]    first slot, slots
    output        float [n, H, D]
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import triton
import triton.language as tl

from kernels.decode_attention import LOG2_E, attend, halves_of
from kernels.variant import Variant, power_of_two

QUERIES: Final = 64
"""The most queries of a block."""


@triton.jit(do_not_specialize=["heads", "group"])
def prefill_attention_kernel(
    output,
    query,
    keys,
    values,
    key_scales,
    value_scales,
    blocks,
    runs,
    heads,
    group,
    capacity,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    block, head = tl.program_id(0), tl.program_id(1)
    first_query = tl.load(blocks + block * 5)
    queries = tl.load(blocks + block * 5 + 1)
    limit = tl.load(blocks + block * 5 + 2)
    first_run = tl.load(blocks + block * 5 + 3)
    last_run = first_run + tl.load(blocks + block * 5 + 4)
    m, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    at = ((first_query + m) * heads + head)[:, None] * HEAD_DIM
    used = (m < queries)[:, None] & (d < HEAD_DIM)[None, :]
    q = tl.load(query + at + d[None, :], mask=used, other=0.0)
    # Finite, so that a block of keys that a query does not see leaves no NaN behind.
    largest = tl.full((BLOCK_M,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    one = tl.zeros((BLOCK_M, BLOCK_D // 2), tl.float32)
    other = tl.zeros((BLOCK_M, BLOCK_D // 2), tl.float32)
    before = 0
    for run in range(first_run, last_run):
        base = head // group * capacity + tl.load(runs + run * 2)
        count = tl.load(runs + run * 2 + 1)
        seen = tl.minimum(count, limit + queries - 1 - before)
        for begin in range(0, seen, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            here = s < seen
            visible = here[None, :] & ((before + s)[None, :] < (limit + m)[:, None])
            largest, total, one, other = attend(
                *(q, keys, values, key_scales, value_scales, base, s, here, visible),
                *(scale, largest, total, one, other, HEAD_DIM, BLOCK_D, QUANTIZED),
            )
        before += count
    left, right, there = halves_of(HEAD_DIM, BLOCK_D, QUANTIZED)
    place = output + at
    mask = (m < queries)[:, None] & there[None, :]
    kind = output.dtype.element_ty
    tl.store(place + left[None, :], (one / total[:, None]).to(kind), mask=mask)
    tl.store(place + right[None, :], (other / total[:, None]).to(kind), mask=mask)


def variant(head_dim: int, cache: str, floats: str = "fp16") -> Variant:
    """The kernel for a head size, and a cache of "int8" or of the activations' own type."""
    kind = f"*{floats}"
    held = "*i8" if cache == "int8" else kind
    return Variant(
        f"prefill_attention.{floats}.{cache}.{head_dim}",
        prefill_attention_kernel,
        {
            "output": kind,
            "query": kind,
            "keys": held,
            "values": held,
            "key_scales": "*fp32",
            "value_scales": "*fp32",
            "blocks": "*i32",
            "runs": "*i32",
            "heads": "i32",
            "group": "i32",
            "capacity": "i32:16",
            "scale": "fp32",
        },
        {
            "HEAD_DIM": head_dim,
            "BLOCK_D": power_of_two(head_dim),
            "BLOCK_M": QUERIES,
            "BLOCK_S": 32 if cache == "int8" else 64,
            "QUANTIZED": cache == "int8",
        },
    )


def prefill_attention(
    chosen: Variant,
    output: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    key_scales: torch.Tensor,
    value_scales: torch.Tensor,
    blocks: torch.Tensor,
    runs: torch.Tensor,
) -> None:
    """Launch over all blocks, none with more than `QUERIES`; every query must see a key.

    What is in the tables is not looked at, as it is on the device.
    """
    _, heads, size = query.shape
    kv_heads, capacity, _ = keys.shape
    assert heads % kv_heads == 0
    assert size == chosen.constants["HEAD_DIM"]
    assert output.shape == query.shape
    assert values.shape == keys.shape == (kv_heads, capacity, size)
    assert key_scales.shape == value_scales.shape == (kv_heads, capacity)
    assert capacity % 16 == 0
    assert blocks.shape[1:] == (5,)
    assert runs.shape[1:] == (2,)
    tensors = (output, query, keys, values, key_scales, value_scales, blocks, runs)
    assert all(tensor.is_contiguous() for tensor in tensors)
    grid = (len(blocks), heads)
    scale = size**-0.5 * LOG2_E
    chosen.launch(grid, *tensors, heads, heads // kv_heads, capacity, scale)


def reference(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blocks: Sequence[Sequence[int]],
    runs: Sequence[Sequence[int]],
) -> torch.Tensor:
    """The same in float64 [n, H, D]; keys, values [K, C, D] multiplied by their scales already."""
    output = torch.zeros(query.shape, dtype=torch.float64)
    group = query.shape[1] // len(keys)
    for first, count, limit, first_run, run_count in blocks:
        chain = runs[first_run : first_run + run_count]
        slots = torch.cat([torch.arange(start, start + length) for start, length in chain])
        k, v = (cache.double()[:, slots].repeat_interleave(group, 0) for cache in (keys, values))
        q = query[first : first + count].double()
        scores = torch.einsum("mhd,hsd->hms", q, k) * query.shape[-1] ** -0.5
        seen = torch.arange(len(slots)) < limit + torch.arange(count)[:, None]
        scores = scores.masked_fill(~seen, float("-inf"))
        output[first : first + count] = torch.einsum("hms,hsd->mhd", scores.softmax(-1), v)
    return output
