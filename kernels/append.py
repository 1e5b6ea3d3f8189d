"""KV append: M-RoPE, INT8 quantisation and the write into the cache, in one pass over new tokens.

For n new tokens, H query heads and K key-value heads of size D, a cache of C slots:

    qkv            float [n, (H + 2 K) * D]   packed projection: queries, keys, values
    cos, sin       float32 [P, D / 2]         rotary table: row p holds the angles of position p
    positions      int32 [3, n]               M-RoPE time, height and width of each token
    slots          int32 [n]                  where in the cache each token goes
    query          float [n, H, D]            out: rotated queries
    keys, values   int8 or float [K, C, D]    out, at `slots` alone: rotated keys, and values
    key_scales, value_scales   float32 [K, C] out where int8: what to multiply each by

Frequency f turns with time below `time`, with height below `time + height`, with width from there
(Qwen2-VL's mrope_section). A head is rotated in halves, as in Hugging Face's `rotate_half`.
Quantisation is symmetric, by token and head: scale = max|x| / 127, and 1 where all are zero.

Vision uses it too: with the picture's own angles for a table, row i for patch i.
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from kernels.quantize import rounded, step_of
from kernels.variant import Variant, power_of_two

LEVELS: Final = 127
"""INT8 is used symmetrically: -127..127."""


@triton.jit(do_not_specialize=["tokens", "heads", "kv_heads", "time", "height"])
def append_kernel(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    qkv,
    cos,
    sin,
    positions,
    slots,
    tokens,
    heads,
    kv_heads,
    capacity,
    time,
    height,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    token, head = tl.program_id(0), tl.program_id(1)
    half: tl.constexpr = HEAD_DIM // 2
    f = tl.arange(0, BLOCK)
    used = f < half
    source = qkv + (token * (heads + 2 * kv_heads) + head) * HEAD_DIM
    low = tl.load(source + f, mask=used, other=0.0).to(tl.float32)
    high = tl.load(source + half + f, mask=used, other=0.0).to(tl.float32)
    if head < heads + kv_heads:
        axis = (f >= time).to(tl.int32) + (f >= time + height).to(tl.int32)
        position = tl.load(positions + axis * tokens + token, mask=used, other=0)
        c = tl.load(cos + position * half + f, mask=used, other=0.0)
        s = tl.load(sin + position * half + f, mask=used, other=0.0)
        turned = low * c - high * s
        high = high * c + low * s
        low = turned
    if head < heads:
        out = query + (token * heads + head) * HEAD_DIM
        tl.store(out + f, low.to(query.dtype.element_ty), mask=used)
        tl.store(out + half + f, high.to(query.dtype.element_ty), mask=used)
    else:
        is_key = head < heads + kv_heads
        kv_head = (head - heads) % kv_heads
        place = kv_head * capacity + tl.load(slots + token)
        if QUANTIZED:
            top = tl.maximum(tl.max(tl.abs(low), 0), tl.max(tl.abs(high), 0))
            scale = step_of(top)
            if is_key:
                tl.store(key_scales + place, scale)
            else:
                tl.store(value_scales + place, scale)
            first = rounded(low / scale)
            second = rounded(high / scale)
        else:
            first = low
            second = high
        at = place.to(tl.int64) * HEAD_DIM
        if is_key:
            tl.store(keys + at + f, first.to(keys.dtype.element_ty), mask=used)
            tl.store(keys + at + half + f, second.to(keys.dtype.element_ty), mask=used)
        else:
            tl.store(values + at + f, first.to(keys.dtype.element_ty), mask=used)
            tl.store(values + at + half + f, second.to(keys.dtype.element_ty), mask=used)


def variant(head_dim: int, cache: str, floats: str = "fp16") -> Variant:
    """The kernel for a head size, and a cache of "int8" or of the activations' own type."""
    return Variant(
        f"append.{floats}.{cache}.{head_dim}",
        append_kernel,
        {
            "query": f"*{floats}",
            "keys": "*i8" if cache == "int8" else f"*{floats}",
            "values": "*i8" if cache == "int8" else f"*{floats}",
            "key_scales": "*fp32",
            "value_scales": "*fp32",
            "qkv": f"*{floats}",
            "cos": "*fp32",
            "sin": "*fp32",
            "positions": "*i32",
            "slots": "*i32",
            "tokens": "i32",
            "heads": "i32",
            "kv_heads": "i32",
            "capacity": "i32:16",
            "time": "i32",
            "height": "i32",
        },
        {
            "HEAD_DIM": head_dim,
            "BLOCK": power_of_two(head_dim // 2),
            "QUANTIZED": cache == "int8",
        },
        warps=1,
    )


def append(
    chosen: Variant,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    key_scales: torch.Tensor,
    value_scales: torch.Tensor,
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    sections: tuple[int, int, int],
) -> None:
    """Launch on tensors of the shapes above; `sections` are M-RoPE's. Slots must be distinct."""
    tokens, heads, size = query.shape
    kv_heads, capacity, _ = keys.shape
    assert qkv.shape == (tokens, (heads + 2 * kv_heads) * size)
    assert size == chosen.constants["HEAD_DIM"] == 2 * sum(sections)
    assert cos.shape == sin.shape
    assert cos.shape[1] == size // 2
    assert positions.shape == (3, tokens)
    assert slots.shape == (tokens,)
    assert values.shape == keys.shape
    assert key_scales.shape == value_scales.shape == (kv_heads, capacity)
    assert capacity % 16 == 0
    tensors = (query, keys, values, key_scales, value_scales, qkv, cos, sin, positions, slots)
    assert all(tensor.is_contiguous() for tensor in tensors)
    grid = (tokens, heads + 2 * kv_heads)
    chosen.launch(grid, *tensors, tokens, heads, kv_heads, capacity, sections[0], sections[1])


def reference(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    sections: tuple[int, int, int],
    heads: int,
    kv_heads: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotated queries [n, H, D], rotated keys [n, K, D] and values [n, K, D], in float64."""
    size = 2 * sum(sections)
    packed = qkv.double().reshape(len(qkv), heads + 2 * kv_heads, size)
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
    places = positions.long()[axis].T, torch.arange(size // 2)
    c, s = (table.double()[places].repeat(1, 2)[:, None] for table in (cos, sin))
    turning = packed[:, : heads + kv_heads]
    low, high = turning.chunk(2, dim=-1)
    turned = turning * c + torch.cat((-high, low), dim=-1) * s
    return turned[:, :heads], turned[:, heads:], packed[:, heads + kv_heads :]


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric INT8 over the last axis of x, and the scales: int8 like x, float32 [...]."""
    top = x.double().abs().amax(-1)
    scale = torch.where(top > 0, top / LEVELS, torch.ones_like(top))
    levels = x.double() / scale[..., None]
    return (levels.sign() * (levels.abs() + 0.5).floor()).to(torch.int8), scale.float()
