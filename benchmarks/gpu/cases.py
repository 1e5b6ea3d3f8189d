"""The launches that are checked and timed, each with its float64 reference and the same in torch.

Shapes are Qwen2.5-VL-3B's where nothing else is said: 16 query heads on 2 key-value heads of size
128, hidden size 2048, a vision encoder of 16 heads of size 80 and hidden size 1280.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import torch
from torch.nn.attention.bias import causal_lower_right

from idetex_edge.triton.chunks import PROGRAMS, chunks_of
from idetex_edge.triton.slots import Chain, Slots
from kernels import append as appending
from kernels import decode_attention as decoding
from kernels import linear as linears
from kernels import norm as norms
from kernels import prefill_attention as prefilling
from kernels import quantize as rounding
from kernels.append import quantized
from kernels.packing import pack_int4
from kernels.projector import Projector, reference_projector
from kernels.variant import FLOATS

HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 16, 2, 128, 2048
VISION_HEADS, VISION_HEAD_DIM, VISION_HIDDEN = 16, 80, 1280
SECTIONS: Final = (16, 24, 24)

Launch = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """A launch to check and time.

    run: launches the kernel and returns its output. right: the reference's, float64. moved: bytes
    that must be read and written. operations: of the products, which multiply `kind`. told: what to
    compare instead of the output, once it ran; it clears what it reads. peers: the same in torch,
    by how; "compiled" goes through torch.compile.
    """

    run: Launch
    right: Launch
    moved: int
    operations: int = 0
    kind: str = "fp16"
    tolerance: float = 2e-3
    told: Launch | None = None
    peers: Mapping[str, Launch] = field(default_factory=dict[str, Launch])


def plans(device: str, processors: int) -> dict[str, Callable[[], Case]]:
    """Every kernel in the shapes that matter, on a GPU of so many multiprocessors: how to make it.

    Each case is made when it is called for.
    """
    here = (device, processors)
    found: dict[str, Callable[[], Case]] = {}
    for form in ("float", "int8", "int4"):
        for rows in (1, 8):
            name = f"linear {form}, {rows} x 4096 -> 11008"
            found[name] = partial(linear_case, form, rows, 11008, 4096, *here)
    for epilogue, outputs, inputs in (("gated", 11008, 2048), ("residual", 2048, 11008)):
        name = f"linear int8 {epilogue}, 1 x {inputs} -> {outputs}"
        found[name] = partial(linear_case, "int8", 1, outputs, inputs, *here, epilogue)
    for form in ("float", "integer"):
        name = f"linear {form}, 1024 x 2048 -> 11008"
        found[name] = partial(linear_case, form, 1024, 11008, 2048, *here)
    found["RMSNorm, 1024 x 2048"] = partial(norm_case, 1024, HIDDEN, device)
    found["rows to INT8, 1024 x 11008"] = partial(quantize_case, 1024, 11008, device)
    for tokens in (1, 1024):
        found[f"append INT8, tokens: {tokens}"] = partial(append_case, tokens, device)
    for cache in ("int8", "float"):
        name = f"decode attention {cache}, 8 rows, 8192 each"
        found[name] = partial(decode_case, 8, 8192, 0, cache, *here)
    for name, forks, prefix, tail in (
        ("1 row, 1500", 1, 1500, 0),
        ("8 rows, 1564 each", 8, 1564, 0),
        ("8 rows, 1500 shared and 64 own", 8, 1500, 64),
    ):
        found[f"decode attention int8, {name}"] = partial(
            decode_case, forks, prefix, tail, "int8", *here
        )
    for cache in ("int8", "float"):
        name = f"prefill attention {cache}, 512 behind 1024"
        found[name] = partial(prefill_case, 512, 1024, cache, device)
    for windows, patches in ((64, 64), (1, 4096)):
        name = f"vision attention, windows: {windows} of {patches} patches"
        found[name] = partial(windows_case, windows, patches, device)
    for name, form, floats in (
        ("bf16", "float", "bf16"),
        ("fp16", "float", "fp16"),
        ("int8", "integer", "fp16"),
    ):
        found[f"projector {name}, 1024 tokens"] = partial(
            projector_case, form, floats, 1024, VISION_HIDDEN, HIDDEN, *here
        )
    return found


def linear_case(
    form: str,
    rows: int,
    outputs: int,
    inputs: int,
    device: str,
    processors: int,
    epilogue: str = "plain",
) -> Case:
    """A linear layer of random numbers in a number format; a gate's matrix is twice as wide."""
    follows = linears.EPILOGUES[epilogue]
    wide = 2 * outputs if follows.gated else outputs
    weight = torch.randn(wide, inputs) * inputs**-0.5
    stored, scale = weight.half(), torch.ones(outputs)
    if form != "float":
        stored, scale = pack_int4(weight) if form == "int4" else quantized(weight)
    x, steps = torch.randn(rows, inputs).half(), None
    seen = x.double()
    if form == "integer":
        x, steps = quantized(x)
        seen = x.double() * steps.double()[:, None]
    bias = torch.randn(wide)
    stream = torch.randn(rows, outputs)
    given = [tensor.to(device) for tensor in (x, stored, scale, bias)]
    x_scale = None if steps is None else steps.to(device)
    kind = torch.float32 if follows.full else torch.float16
    result = torch.empty(rows, outputs, dtype=kind, device=device)
    residual = stream.to(device) if follows.residual else None
    tile = linears.tile_of(form, epilogue, rows, outputs, processors)
    chosen = linears.variant(form, epilogue, tile)
    dense = linears.dense(form, stored, scale)
    theirs = [tensor.half().to(device) for tensor in (seen, dense, bias)]

    def run() -> torch.Tensor:
        linears.linear(chosen, result, *given, x_scale=x_scale, residual=residual)
        return result

    def peer() -> torch.Tensor:
        y = torch.nn.functional.linear(*theirs)
        if follows.gated:
            gate, up = y.chunk(2, dim=-1)
            return torch.nn.functional.silu(gate) * up
        return y if residual is None else residual + y

    moved = (*given, result) if residual is None else (*given, result, residual)
    return Case(
        run,
        lambda: linears.reference(
            seen, dense, bias, epilogue, stream if follows.residual else None
        ),
        sum(tensor.nbytes for tensor in moved),
        2 * rows * wide * inputs,
        "int8" if form == "integer" else "fp16",
        peers={"torch": peer} if epilogue == "plain" else {"torch": peer, "compiled": peer},
    )


def norm_case(rows: int, size: int, device: str) -> Case:
    """RMSNorm of the stream to FP16."""
    x, weight = torch.randn(rows, size) * 30, torch.randn(size)
    stream, factor, zeros = (tensor.to(device) for tensor in (x, weight, torch.zeros(size)))
    result = torch.empty(rows, size, dtype=torch.float16, device=device)
    chosen = norms.variant("rms", "fp16", size)

    def run() -> torch.Tensor:
        norms.norm(chosen, result, zeros, stream, factor, zeros, 1e-6)
        return result

    def peer() -> torch.Tensor:
        return torch.nn.functional.rms_norm(stream, (size,), factor, 1e-6).half()

    return Case(
        run,
        lambda: norms.reference("rms", x, weight, torch.zeros(size), 1e-6),
        x.nbytes + result.nbytes,
        peers={"torch": peer, "compiled": peer},
    )


def quantize_case(rows: int, size: int, device: str) -> Case:
    """Rows of FP16 to INT8, told by the numbers that they stand for."""
    x = torch.randn(rows, size).half()
    given = x.to(device)
    levels = torch.empty(rows, size, dtype=torch.int8, device=device)
    scale = torch.empty(rows, device=device)
    chosen = rounding.variant()

    def run() -> torch.Tensor:
        rounding.quantize(chosen, levels, scale, given)
        return levels

    def told() -> torch.Tensor:
        found = levels.double() * scale.double()[:, None]
        # A peer that writes nothing is not to be told what the kernel wrote.
        levels.zero_()
        return found

    def peer() -> torch.Tensor:
        step = given.float().abs().amax(-1, keepdim=True) / 127
        scale.copy_(step[:, 0])
        levels.copy_((given / step).round())
        return levels

    return Case(
        run,
        x.double,
        x.nbytes + levels.nbytes + scale.nbytes,
        # As INT8 rounds.
        tolerance=2e-2,
        told=told,
        peers={"torch": peer, "compiled": peer},
    )


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


def projector_case(
    form: str, floats: str, tokens: int, size: int, features: int, device: str, processors: int
) -> Case:
    """The patch merger: norm, gather out of window order, two linear layers with GELU between."""
    unit, kind = 4 * size, FLOATS[floats]

    def layer(outputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight, bias = torch.randn(outputs, unit) * unit**-0.5, torch.randn(outputs)
        if form == "float":
            return weight.to(kind), torch.ones(outputs), bias
        return *quantized(weight), bias

    layers = layer(unit), layer(features)
    norm = torch.randn(size), torch.zeros(size)
    made = Projector(form, "rms", *norm, *layers, floats)
    inner, outer = ((w.to(device), s.to(device), b.to(device)) for w, s, b in layers)
    there = Projector(form, "rms", norm[0].to(device), norm[1].to(device), inner, outer, floats)
    x, order = torch.randn(4 * tokens, size), torch.randperm(tokens).int()
    stream, restored = x.to(device), order.to(device)
    dense = [
        (linears.dense(form, weight, scale).to(kind).to(device), bias.to(kind).to(device))
        for weight, scale, bias in layers
    ]
    index = order.long().to(device)

    def peer() -> torch.Tensor:
        normed = torch.nn.functional.rms_norm(stream, (size,), there.norm_weight, 1e-6).to(kind)
        rows = normed.view(tokens, unit)[index]
        between = torch.nn.functional.gelu(torch.nn.functional.linear(rows, *dense[0]))
        return torch.nn.functional.linear(between, *dense[1])

    moved = x.nbytes + 4 * tokens * features + sum(t.nbytes for part in layers for t in part)
    return Case(
        lambda: there.project(stream, restored, 1e-6, processors),
        lambda: reference_projector(made, x, order, 1e-6),
        moved,
        2 * tokens * unit * (unit + features),
        "int8" if form == "integer" else floats,
        tolerance=2e-2 if form == "integer" or floats == "bf16" else 2e-3,
        peers={"torch": peer, "compiled": peer},
    )
