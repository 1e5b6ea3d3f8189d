"""Decode attention over a KV cache that sequences share in parts: one new token in each.

A sequence is a chain of runs of slots: the prefix it was forked from, then its own tail. Forking
is a longer chain, never a copy. The host cuts every run into *chunks* of at most some hundred slots
and lists, for each, the rows of the batch that see it. One program takes one chunk and one
key-value head, and multiplies the queries of *all* those rows with it as one matrix: a prefix that
eight forks share is read once, not eight times. The tails are chunks with one row. What each row
found in each of its chunks is merged exactly, by log-sum-exp.

For b rows, H query heads, K key-value heads of size D, C slots, W chunks, and p parts, which are
pairs of a chunk and a row that sees it:

    query         float [b, H, D]
    keys, values  int8 or float [K, C, D], with key_scales, value_scales float32 [K, C] where int8
    chunks        int32 [W, 4]    first slot, slots (0: nothing to do), first part, parts
    rows          int32 [p]       the row of each part; a chunk's parts are consecutive
    partial       float32 [p, H, D]   what the row's heads found in the chunk, normalised
    weight        float32 [p, H]      base-2 log of the sum of its exponentials
    offsets       int32 [b + 1]   where in `parts` each row's begin
    parts         int32 [p]       parts, row by row
    output        float [b, H, D]

INT8 is widened to the queries' type in registers, which is exact; key scales multiply the scores,
value scales the probabilities.
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import triton
import triton.language as tl

from kernels.variant import Variant, power_of_two
from kernels.widen import pairs, widened

LOG2_E: Final = 1.4426950408889634


@triton.jit
def attend(
    q,
    keys,
    values,
    key_scales,
    value_scales,
    base,
    slot,
    here,
    visible,
    scale,
    largest,
    total,
    first,
    second,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    """One block of slots seen: the softmax's largest exponent, its sum, and what is found so far.

    slot, here [S]: the block's slots behind `base`, and which there are; visible [1, S] or [M, S]:
    which query sees which; first, second [M, D / 2]: what is found in the columns of `halves_of`.
    Exponents are of two. Scales are reached from pointers that all threads share: slots are kept in
    registers.
    """
    d, h = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_D // 2)
    row = (base + slot).to(tl.int64)[:, None]
    used = here[:, None] & (d < HEAD_DIM)[None, :]
    k = tl.load(keys + row * HEAD_DIM + d[None, :], mask=used, other=0)
    half = here[:, None] & (h < HEAD_DIM // 2)[None, :]
    if QUANTIZED:
        # The product takes pairs of slots, which lie apart. Shared memory turns what has 16 bits:
        # bytes are turned by twos, neighbours of a slot, and told apart behind that.
        pair = values.to(tl.pointer_type(tl.int16)) + row * (HEAD_DIM // 2) + h[None, :]
        v, w = pairs(tl.load(pair, mask=half, other=0), q.dtype)
        k = widened(k, q.dtype)
    else:
        place = values + row * HEAD_DIM + h[None, :]
        v = tl.load(place, mask=half, other=0.0)
        w = tl.load(place + HEAD_DIM // 2, mask=half, other=0.0)
    scores = tl.dot(q, tl.trans(k)) * scale
    if QUANTIZED:
        scores *= tl.load(key_scales + base + slot, mask=here, other=0.0)[None, :]
    scores = tl.where(visible, scores, float("-inf"))
    larger = tl.maximum(largest, tl.max(scores, 1))
    shrink = tl.exp2(largest - larger)
    p = tl.exp2(scores - larger[:, None])
    total = total * shrink + tl.sum(p, 1)
    first *= shrink[:, None]
    second *= shrink[:, None]
    if QUANTIZED:
        # Relative to the block's largest: the scales themselves can be too small for FP16.
        value_scale = tl.load(value_scales + base + slot, mask=here, other=0.0)
        top = tl.max(value_scale, 0)
        p = (p * (value_scale / top)[None, :]).to(q.dtype)
        first += tl.dot(p, v) * top
        second += tl.dot(p, w) * top
    else:
        p = p.to(q.dtype)
        first = tl.dot(p, v, first)
        second = tl.dot(p, w, second)
    return larger, total, first, second


@triton.jit
def halves_of(HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, QUANTIZED: tl.constexpr):
    """The columns that `attend` finds first, those that it finds second, and which there are."""
    h = tl.arange(0, BLOCK_D // 2)
    if QUANTIZED:
        first = 2 * h
        second = first + 1
    else:
        first = h
        second = h + HEAD_DIM // 2
    return first, second, h < HEAD_DIM // 2


@triton.jit(do_not_specialize=["heads"])
def decode_attention_kernel(
    partial,
    weight,
    query,
    keys,
    values,
    key_scales,
    value_scales,
    chunks,
    rows,
    heads,
    capacity,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    chunk, kv_head = tl.program_id(0), tl.program_id(1)
    start = tl.load(chunks + chunk * 4)
    count = tl.load(chunks + chunk * 4 + 1)
    first = tl.load(chunks + chunk * 4 + 2)
    members = tl.load(chunks + chunk * 4 + 3)
    if count > 0:
        m, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
        head = kv_head * GROUP + m % GROUP
        used, wide = m // GROUP < members, d < HEAD_DIM
        row = tl.load(rows + first + m // GROUP, mask=used, other=0)
        q = tl.load(
            query + (row * heads + head)[:, None] * HEAD_DIM + d[None, :],
            mask=used[:, None] & wide[None, :],
            other=0.0,
        )
        largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        one = tl.zeros((BLOCK_M, BLOCK_D // 2), tl.float32)
        other = tl.zeros((BLOCK_M, BLOCK_D // 2), tl.float32)
        base = kv_head * capacity + start
        for begin in range(0, count, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            here = s < count
            largest, total, one, other = attend(
                *(q, keys, values, key_scales, value_scales, base, s, here, here[None, :]),
                *(scale, largest, total, one, other, HEAD_DIM, BLOCK_D, QUANTIZED),
            )
        part = (first + m // GROUP) * heads + head
        place = partial + part[:, None] * HEAD_DIM
        left, right, there = halves_of(HEAD_DIM, BLOCK_D, QUANTIZED)
        mask = used[:, None] & there[None, :]
        tl.store(place + left[None, :], one / total[:, None], mask=mask)
        tl.store(place + right[None, :], other / total[:, None], mask=mask)
        tl.store(weight + part, largest + tl.log2(total), mask=used)


@triton.jit(do_not_specialize=["heads"])
def merge_kernel(
    output,
    partial,
    weight,
    offsets,
    parts,
    heads,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    d, p = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_P)
    wide = d < HEAD_DIM
    end = tl.load(offsets + row + 1)
    # Finite, so that no difference of two exponents is undefined.
    largest = tl.max(tl.full((BLOCK_P,), -1e30, tl.float32), 0)
    total = tl.sum(tl.zeros((BLOCK_P,), tl.float32), 0)
    found = tl.zeros((BLOCK_D,), tl.float32)
    for begin in range(tl.load(offsets + row), end, BLOCK_P):
        there = begin + p < end
        part = tl.load(parts + begin + p, mask=there, other=0) * heads + head
        w = tl.load(weight + part, mask=there, other=-1e30)
        at = part[:, None] * HEAD_DIM + d[None, :]
        x = tl.load(partial + at, mask=there[:, None] & wide[None, :], other=0.0)
        larger = tl.maximum(largest, tl.max(w, 0))
        shrink, share = tl.exp2(largest - larger), tl.exp2(w - larger)
        found = found * shrink + tl.sum(x * share[:, None], 0)
        total = total * shrink + tl.sum(share, 0)
        largest = larger
    place = (row * heads + head) * HEAD_DIM + d
    tl.store(output + place, (found / total).to(output.dtype.element_ty), mask=wide)


def members(group: int, shared: bool) -> int:
    """How many rows one program takes: 1, or as many as fill 64 rows of the matrix product."""
    return 64 // group if shared else 1


def variant(
    head_dim: int, group: int, cache: str, *, shared: bool, floats: str = "fp16"
) -> Variant:
    """The kernel for `group` query heads on each key-value head, for chunks of one row or more."""
    kind = f"*{floats}"
    held = "*i8" if cache == "int8" else kind
    slots = 32 if shared else 64
    return Variant(
        f"decode_attention.{floats}.{cache}.{head_dim}x{group}.{'shared' if shared else 'single'}",
        decode_attention_kernel,
        {
            "partial": "*fp32",
            "weight": "*fp32",
            "query": kind,
            "keys": held,
            "values": held,
            "key_scales": "*fp32",
            "value_scales": "*fp32",
            "chunks": "*i32",
            "rows": "*i32",
            "heads": "i32",
            "capacity": "i32:16",
            "scale": "fp32",
        },
        {
            "HEAD_DIM": head_dim,
            "BLOCK_D": power_of_two(head_dim),
            "GROUP": group,
            "BLOCK_M": 64 if shared else 16,
            "BLOCK_S": slots,
            "QUANTIZED": cache == "int8",
        },
        # What many rows share is read once, and multiplying takes the time.
        streamed=0 if shared else 2 * slots * head_dim * (1 if cache == "int8" else 2),
    )


def merge_variant(head_dim: int, floats: str = "fp16") -> Variant:
    """The kernel that joins a row's parts."""
    return Variant(
        f"merge.{floats}.{head_dim}",
        merge_kernel,
        {
            "output": f"*{floats}",
            "partial": "*fp32",
            "weight": "*fp32",
            "offsets": "*i32",
            "parts": "*i32",
            "heads": "i32",
        },
        {"HEAD_DIM": head_dim, "BLOCK_D": power_of_two(head_dim), "BLOCK_P": 16},
    )


def decode_attention(
    chosen: Variant,
    partial: torch.Tensor,
    weight: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    key_scales: torch.Tensor,
    value_scales: torch.Tensor,
    chunks: torch.Tensor,
    rows: torch.Tensor,
) -> None:
    """Launch over a list of chunks, none with more parts than `members` of the variant.

    What is in the tables is not looked at, as it is on the device.
    """
    _, heads, size = query.shape
    kv_heads, capacity, _ = keys.shape
    group = heads // kv_heads
    assert group == chosen.constants["GROUP"]
    assert size == chosen.constants["HEAD_DIM"]
    assert values.shape == keys.shape == (kv_heads, capacity, size)
    assert key_scales.shape == value_scales.shape == (kv_heads, capacity)
    assert capacity % 16 == 0
    assert chunks.shape[1] == 4
    assert partial.shape == (len(rows), heads, size)
    assert weight.shape == (len(rows), heads)
    tensors = (partial, weight, query, keys, values, key_scales, value_scales, chunks, rows)
    assert all(tensor.is_contiguous() for tensor in tensors)
    chosen.launch((len(chunks), kv_heads), *tensors, heads, capacity, size**-0.5 * LOG2_E)


def merge(
    chosen: Variant,
    output: torch.Tensor,
    partial: torch.Tensor,
    weight: torch.Tensor,
    offsets: torch.Tensor,
    parts: torch.Tensor,
) -> None:
    """Launch over all rows; every row needs at least one part."""
    rows, heads, size = output.shape
    assert size == chosen.constants["HEAD_DIM"]
    assert offsets.shape == (rows + 1,)
    assert partial.shape[1:] == (heads, size)
    assert weight.shape == partial.shape[:2]
    tensors = (output, partial, weight, offsets, parts)
    assert all(tensor.is_contiguous() for tensor in tensors)
    chosen.launch((rows, heads), *tensors, heads)


def reference(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    chains: Sequence[Sequence[tuple[int, int]]],
) -> torch.Tensor:
    """Attention of each row over its chain of (first slot, slots) runs: float64 [b, H, D].

    query: [b, H, D]. keys, values: [K, C, D], multiplied by their scales already.
    """
    output = torch.empty(query.shape, dtype=torch.float64)
    group = query.shape[1] // len(keys)
    for row, chain in enumerate(chains):
        slots = torch.cat([torch.arange(start, start + count) for start, count in chain])
        k, v = (cache.double()[:, slots].repeat_interleave(group, 0) for cache in (keys, values))
        scores = torch.einsum("hd,hsd->hs", query[row].double(), k) * query.shape[-1] ** -0.5
        output[row] = torch.einsum("hs,hsd->hd", scores.softmax(-1), v)
    return output
