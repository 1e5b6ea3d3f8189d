"""Linear layers, norms, rows to INT8 and the projector, each beside its reference and torch."""

from __future__ import annotations

import torch

from benchmarks.gpu.case import (
    Case,
)
from kernels import linear as linears
from kernels import norm as norms
from kernels import quantize as rounding
from kernels.append import quantized
from kernels.packing import pack_int4
from kernels.projector import Projector, reference_projector
from kernels.variant import FLOATS


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
