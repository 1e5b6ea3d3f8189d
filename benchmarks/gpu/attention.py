"""The KV cache and attention over it, each beside its reference and the same in torch."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn.attention.bias import causal_lower_right

from benchmarks.gpu.case import (
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    VISION_HEAD_DIM,
    VISION_HEADS,
    Case,
)
from idetex_edge.triton.chunks import PROGRAMS, chunks_of
from idetex_edge.triton.slots import Chain, Slots
from kernels import append as appending
from kernels import decode_attention as decoding
from kernels import prefill_attention as prefilling
from kernels.append import quantized

SECTIONS: Final = (16, 24, 24)
"""M-RoPE's time, height and width."""


def append_case(tokens: int, device: str) -> Case:
    """M-RoPE, INT8 and the write into the cache, told by the queries and what is found there."""
    slots, positions = -(-tokens // 16) * 16, 4096
    width = HEADS + 2 * KV_HEADS
    qkv = torch.randn(tokens, width * HEAD_DIM).half()
    angle = torch.outer(torch.arange(positions), 1e6 ** -torch.linspace(0, 1, HEAD_DIM // 2))
    where = torch.randint(0, positions, (3, tokens), dtype=torch.int32)
    places = torch.randperm(slots)[:tokens].int()
    tables = angle.cos(), angle.sin()
    packed_there, cos, sin, at_there, slot_there = (
        tensor.to(device) for tensor in (qkv, *tables, where, places)
    )
    query = torch.empty(tokens, HEADS, HEAD_DIM, dtype=torch.float16, device=device)
    keys, values = (
        torch.zeros(KV_HEADS, slots, HEAD_DIM, dtype=torch.int8, device=device) for _ in range(2)
    )
    key_scales, value_scales = (torch.zeros(KV_HEADS, slots, device=device) for _ in range(2))
    chosen = appending.variant(HEAD_DIM, "int8")
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(SECTIONS)).to(device)
    frequency = torch.arange(HEAD_DIM // 2, device=device)

    def run() -> torch.Tensor:
        appending.append(
            *(chosen, query, keys, values, key_scales, value_scales),
            *(packed_there, cos, sin, at_there, slot_there, SECTIONS),
        )
        return query

    def peer() -> torch.Tensor:
        packed = packed_there.view(tokens, width, HEAD_DIM).float()
        at = at_there.long()[axis].T
        c, s = (table[at, frequency].repeat(1, 2)[:, None] for table in (cos, sin))
        turning = packed[:, : HEADS + KV_HEADS]
        low, high = turning.chunk(2, dim=-1)
        turned = turning * c + torch.cat((-high, low), dim=-1) * s
        new = torch.cat((turned[:, HEADS:], packed[:, HEADS + KV_HEADS :]), dim=1)
        step = new.abs().amax(-1) / 127
        levels = (new / step[..., None]).round().to(torch.int8).transpose(0, 1)
        slot = slot_there.long()
        keys[:, slot], values[:, slot] = levels[:KV_HEADS], levels[KV_HEADS:]
        key_scales[:, slot], value_scales[:, slot] = step.T[:KV_HEADS], step.T[KV_HEADS:]
        query.copy_(turned[:, :HEADS])
        return query

    def right() -> torch.Tensor:
        found = appending.reference(qkv, *tables, where, SECTIONS, HEADS, KV_HEADS)
        return torch.cat(found, dim=1)

    def told() -> torch.Tensor:
        slot = slot_there.long()
        new = [
            (held[:, slot] * step[:, slot, None]).transpose(0, 1)
            for held, step in ((keys, key_scales), (values, value_scales))
        ]
        found = torch.cat((query.float(), *new), dim=1)
        # A peer that writes nothing is not to be told what the kernel wrote.
        for tensor in (query, keys, values):
            tensor.zero_()
        return found

    written = 2 * KV_HEADS * tokens * (HEAD_DIM + 4)
    return Case(
        run,
        right,
        qkv.nbytes + query.nbytes + written + where.nbytes + 2 * tokens * HEAD_DIM // 2 * 4,
        tolerance=2e-2,
        told=told,
        peers={"torch": peer, "compiled": peer},
    )


def decode_case(
    forks: int, prefix: int, tail: int, cache: str, device: str, processors: int
) -> Case:
    """Decode attention, cut into chunks as the engine cuts it.

    tail: 0 gives each row a prefix of its own; otherwise all share one and have tails.
    """
    group, whole = HEADS // KV_HEADS, cache == "int8"
    used = prefix + forks * (tail + 16) if tail else forks * (prefix + 16)
    slots = Slots(-(-used // 16) * 16)
    stem = Chain(slots)
    if tail:
        stem.append(prefix)
    chains = [stem.fork(stem.length + (tail or prefix)) for _ in range(forks)]
    for chain in chains:
        chain.append(tail or prefix)
    held, scales, dense = _held(KV_HEADS, slots.count, HEAD_DIM, cache)
    query = torch.randn(forks, HEADS, HEAD_DIM).half()
    members = decoding.members(group, shared=True)
    cut = chunks_of(chains, members, PROGRAMS * processors // KV_HEADS)

    def table(name: str) -> torch.Tensor:
        return torch.from_numpy(getattr(cut, name)).to(device)

    asked, viewers = query.to(device), table("rows")
    keys, values, key_steps, value_steps = (tensor.to(device) for tensor in (*held, *scales))
    found = torch.empty(len(viewers), HEADS, HEAD_DIM, device=device)
    weight = torch.empty(len(viewers), HEADS, device=device)
    offsets, parts, result = table("offsets"), table("parts"), torch.empty_like(asked)
    launches = [
        (decoding.variant(HEAD_DIM, group, cache, shared=name == "shared"), table(name))
        for name in ("single", "shared")
        if len(getattr(cut, name))
    ]
    joined = decoding.merge_variant(HEAD_DIM)
    places = [[(run.segment.start, run.count) for run in chain.runs] for chain in chains]

    def run() -> torch.Tensor:
        for chosen, chunks in launches:
            decoding.decode_attention(
                *(chosen, found, weight, asked, keys, values, key_steps, value_steps),
                *(chunks, viewers),
            )
        decoding.merge(joined, result, found, weight, offsets, parts)
        return result

    # torch has neither INT8 caches nor shared prefixes: FP16, and every row's whole.
    gathered = [
        torch.stack(
            [torch.cat([tensor[:, a : a + n] for a, n in chain], dim=1).half() for chain in places]
        ).to(device)
        for tensor in dense
    ]

    def peer() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            asked[:, :, None], gathered[0], gathered[1], enable_gqa=True
        )

    read = prefix + forks * tail if tail else forks * prefix
    return Case(
        run,
        lambda: decoding.reference(query, *dense, places),
        read * KV_HEADS * 2 * (HEAD_DIM + 4 if whole else 2 * HEAD_DIM) + 2 * query.nbytes,
        4 * forks * (prefix + tail) * HEADS * HEAD_DIM,
        peers={"SDPA": peer},
    )


def prefill_case(tokens: int, past: int, cache: str, device: str) -> Case:
    """Causal attention of new tokens behind a prefix."""
    slots = past + tokens
    blocks = [
        (first, min(prefilling.QUERIES, tokens - first), past + first + 1, 0, 1)
        for first in range(0, tokens, prefilling.QUERIES)
    ]
    return _attention_case(
        torch.randn(tokens, HEADS, HEAD_DIM).half(),
        _held(KV_HEADS, slots, HEAD_DIM, cache),
        (blocks, [(0, slots)]),
        tokens * past + tokens * (tokens + 1) // 2,
        cache,
        device,
        (tokens, slots),
    )


def windows_case(windows: int, patches: int, device: str) -> Case:
    """The vision encoder's attention: windows of patches that see each other."""
    count = windows * patches
    blocks = [
        (window * patches + first, min(prefilling.QUERIES, patches - first), 2**30, window, 1)
        for window in range(windows)
        for first in range(0, patches, prefilling.QUERIES)
    ]
    return _attention_case(
        torch.randn(count, VISION_HEADS, VISION_HEAD_DIM).half(),
        _held(VISION_HEADS, count, VISION_HEAD_DIM, "float"),
        (blocks, [(window * patches, patches) for window in range(windows)]),
        windows * patches**2,
        "float",
        device,
        None,
    )


Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values."""


def _held(heads: int, slots: int, size: int, cache: str) -> tuple[Pair, torch.Tensor, Pair]:
    """Random keys and values as a cache holds them, their scales, and what they are in float64."""
    keys, values = (torch.randn(heads, slots, size).half() for _ in range(2))
    if cache != "int8":
        return (keys, values), torch.ones(2, heads, slots), (keys.double(), values.double())
    (keys, key_step), (values, value_step) = quantized(keys), quantized(values)
    dense = (
        keys.double() * key_step.double()[..., None],
        values.double() * value_step.double()[..., None],
    )
    return (keys, values), torch.stack((key_step, value_step)), dense


def _attention_case(
    query: torch.Tensor,
    held: tuple[Pair, torch.Tensor, Pair],
    tables: tuple[list[tuple[int, ...]], list[tuple[int, int]]],
    pairs: int,
    cache: str,
    device: str,
    causal_of: tuple[int, int] | None,
) -> Case:
    """pairs: of a query and a key that it sees. causal_of: queries and keys; None for windows."""
    (caches, scales, dense), (blocks, runs) = held, tables
    _, heads, size = query.shape
    asked = query.to(device)
    # A cache has a multiple of 16 slots.
    more = -caches[0].shape[1] % 16
    pad = torch.nn.functional.pad
    keys, values = (pad(tensor, (0, 0, 0, more)).to(device) for tensor in caches)
    key_steps, value_steps = (pad(tensor, (0, more)).to(device) for tensor in scales)
    table, chain = (torch.tensor(t, dtype=torch.int32, device=device) for t in tables)
    result = torch.empty_like(asked)
    chosen = prefilling.variant(size, cache)

    def run() -> torch.Tensor:
        prefilling.prefill_attention(
            *(chosen, result, asked, keys, values, key_steps, value_steps, table, chain)
        )
        return result

    # torch's fast attention takes either a mask or grouped heads: heads are repeated beforehand.
    group = heads // len(dense[0])
    windows = len(runs)
    # [windows, heads, tokens of one, size]
    theirs = [
        tensor.half().reshape(-1, windows, tensor.shape[1] // windows, size).transpose(0, 1)
        for tensor in (query.transpose(0, 1), *(t.repeat_interleave(group, 0) for t in dense))
    ]
    theirs = [tensor.contiguous().to(device) for tensor in theirs]
    causal = causal_lower_right(*causal_of) if causal_of else None

    def peer() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            theirs[0], theirs[1], theirs[2], attn_mask=causal
        )

    return Case(
        run,
        lambda: prefilling.reference(query, *dense, blocks, runs),
        2 * query.nbytes + sum(tensor.nbytes for tensor in caches),
        4 * pairs * heads * size,
        peers={"SDPA": peer},
    )
