"""Linear layers: x W^T + b in four number formats, with what follows them in the same kernel.

For m rows, K inputs (a multiple of 64), N outputs:

    x         float [m, K], or int8 [m, K] for "integer"
    x_scale   float32 [m]            for "integer": what to multiply each row by
    weight    float [N, K]           "float": of x's type
              int8 [N, K]            "int8", "integer": symmetric, a scale for each output
              uint8 [N, K / 2]       "int4": symmetric, a scale for 64 inputs of an output
    scale     float32 [N], or [N, K / 64] for "int4"
    bias      float32 [N]            zeros where there is none
    residual  float32 [m, N]         for "residual"; may be `output` itself
    output    float or float32 [m, N], or [m, N / 2] for "gated"

"int8" and "int4" are weight-only: widened in registers, which is exact, and multiplied in x's type;
for the 1 to 16 rows of decoding, that reads half or a quarter of the bytes. "integer" multiplies
INT8 by INT8 into INT32, for prefill and vision (see `kernels.quantize` for its x). Sums are FP32.

What follows is one of `EPILOGUES`: nothing, to either type; an activation; the sum with the
residual stream, which stays FP32; or a gated SiLU, where the first N / 2 rows of the weight are the
gate and the rest what it multiplies. Arguments that a format does not use may point anywhere.

An INT4 byte j of the 32 of a group holds input j in its lower half and input j + 32 in its upper,
each plus 8: the halves of x that they meet are contiguous, and nothing is interleaved.
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl

from kernels.variant import Variant, ceil_div
from kernels.widen import halves, widened

GRAIN: Final = 64
"""Inputs come in multiples of this; an INT4 group is as long."""

FORMS: Final[Mapping[str, tuple[int, ...]]] = {
    "float": (8, 16, 64, 128),
    "int8": (8, 16, 64),
    "int4": (8, 16, 64),
    "integer": (64, 128),
}
"""Number formats, and the tiles that each has, by their rows (see `TILES`). "int8" needs none for
many rows, since vision and prefill multiply such weights as "integer". "int4" has none of 128: its
sums are scaled group by group, and two tiles of them do not fit into registers."""

_BYTES: Final[Mapping[str, float]] = {"float": 2, "int8": 1, "int4": 0.5, "integer": 1}
"""Of a weight, by number format."""

FEW: Final = 16
"""Rows of the largest tile for decoding, where reading the weights is the work."""
MIDDLE: Final = 64
"""Rows of the tile for layers that have too few for the largest."""


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What follows a product: an activation, a gate, a residual; and whether it stays FP32."""

    activation: str = "none"
    gated: bool = False
    residual: bool = False
    full: bool = False


EPILOGUES: Final[Mapping[str, Epilogue]] = {
    "plain": Epilogue(),
    "full": Epilogue(full=True),
    "residual": Epilogue(residual=True, full=True),
    "gated": Epilogue(gated=True),
    "gelu": Epilogue("gelu"),
    "quick_gelu": Epilogue("quick_gelu"),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes: so many outputs of so many rows.

    inputs: read at once of weights of a byte each; half as many where they have two. stages: such
    steps, all but one of them under way: a program for decoding has asked for 16 KB of FP16 or INT8
    weights, and shared memory decides how many programs a multiprocessor holds.
    """

    outputs: int
    inputs: int
    warps: int
    stages: int


TILES: Final[Mapping[int, Tile]] = {
    8: Tile(16, 256, 1, 5),
    16: Tile(16, 256, 1, 5),
    64: Tile(64, 128, 4, 3),
    128: Tile(128, 128, 8, 3),
}
"""By the most rows of a tile: two for decoding, two for vision and prefill."""


def tile_of(form: str, epilogue: str, rows: int, outputs: int, processors: int) -> int:
    """The tile for a layer, by its rows, on a GPU of so many multiprocessors.

    The smallest that takes all rows reads the weights once. Where none does, the largest reads the
    least, if there are enough of them for every multiprocessor.
    """
    largest = FORMS[form][-1]
    middle = [tile for tile in FORMS[form] if tile <= MIDDLE]
    for tile in middle:
        if rows <= tile:
            return tile
    programs = ceil_div(rows, largest) * ceil_div(outputs, outputs_of_tile(epilogue, largest))
    return largest if programs >= processors else middle[-1]


def outputs_of_tile(epilogue: str, rows: int) -> int:
    """How many outputs a tile has: half as many where a second tile is held in registers.

    That is the gate, or the residual; of few rows, both are small.
    """
    follows, tile = EPILOGUES[epilogue], TILES[rows]
    twofold = rows > FEW and (follows.gated or follows.residual)
    return tile.outputs // 2 if twofold else tile.outputs


@triton.jit
def _product(
    x,
    weight,
    scale,
    at_rows,
    at_outputs,
    row_mask,
    inputs,
    FORM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The tile's sums over all inputs [outputs, rows], without the scales of outputs and rows."""
    if FORM == "integer":
        total = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
    else:
        total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if FORM == "int4":
        j = tl.arange(0, 32)
        x_at = x + at_rows[None, :] * inputs + j[:, None]
        w_at = weight + at_outputs[:, None] * (inputs // 2) + j[None, :]
        for begin in range(0, inputs, BLOCK_K):
            for group in tl.static_range(BLOCK_K // 64):
                at = begin + group * 64
                there = at + j < inputs
                used = row_mask[None, :] & there[:, None]
                low = tl.load(x_at + at, mask=used, other=0.0)
                high = tl.load(x_at + at + 32, mask=used, other=0.0)
                packed = tl.load(w_at + at // 2, mask=there[None, :], other=0)
                lower, upper = halves(packed, low.dtype)
                found = tl.dot(upper, high, tl.dot(lower, low))
                step = scale + at_outputs * (inputs // 64) + at // 64
                inside = at_outputs * 0 + at < inputs
                total += found * tl.load(step, mask=inside, other=0.0)[:, None]
    else:
        k = tl.arange(0, BLOCK_K)
        x_at = x + at_rows[None, :] * inputs + k[:, None]
        w_at = weight + at_outputs[:, None] * inputs + k[None, :]
        for begin in range(0, inputs, BLOCK_K):
            if BLOCK_K == 64:
                a = tl.load(x_at + begin, mask=row_mask[None, :], other=0)
                w = tl.load(w_at + begin)
            else:
                there = begin + k < inputs
                a = tl.load(x_at + begin, mask=row_mask[None, :] & there[:, None], other=0)
                w = tl.load(w_at + begin, mask=there[None, :], other=0)
            if FORM == "int8":
                w = widened(w, a.dtype)
            total = tl.dot(w, a, total, out_dtype=total.dtype)
    return total


@triton.jit
def _finished(
    total,
    x_scale,
    scale,
    bias,
    rows_at,
    outputs_at,
    row_mask,
    FORM: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """Sums with their scales, bias and activation: [rows, outputs]."""
    y = tl.trans(total).to(tl.float32)
    if FORM == "integer":
        y *= tl.load(x_scale + rows_at, mask=row_mask, other=0.0)[:, None]
    if FORM == "int8" or FORM == "integer":
        y *= tl.load(scale + outputs_at)[None, :]
    y += tl.load(bias + outputs_at)[None, :]
    if ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    if ACTIVATION == "quick_gelu":
        y = y / (1.0 + tl.exp(-1.702 * y))
    return y


@triton.jit(do_not_specialize=["rows", "outputs"])
def linear_kernel(
    output,
    x,
    x_scale,
    weight,
    scale,
    bias,
    residual,
    rows,
    outputs,
    inputs,
    FORM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Neighbouring programs share a weight tile, which is the larger part of what is read.
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask = m < rows
    # Outputs beyond the last compute the first ones again and are not stored.
    at = tl.where(n < outputs, n, 0)
    rows64, at64 = m.to(tl.int64), at.to(tl.int64)
    total = _product(
        x, weight, scale, rows64, at64, row_mask, inputs, FORM, BLOCK_M, BLOCK_N, BLOCK_K
    )
    y = _finished(total, x_scale, scale, bias, m, at64, row_mask, FORM, ACTIVATION)
    if GATED:
        above = at64 + outputs
        total = _product(
            x, weight, scale, rows64, above, row_mask, inputs, FORM, BLOCK_M, BLOCK_N, BLOCK_K
        )
        up = _finished(total, x_scale, scale, bias, m, above, row_mask, FORM, ACTIVATION)
        y = y / (1.0 + tl.exp(-y)) * up
    place = rows64[:, None] * outputs + n[None, :]
    mask = row_mask[:, None] & (n < outputs)[None, :]
    if RESIDUAL:
        y += tl.load(residual + place, mask=mask, other=0.0)
    tl.store(output + place, y.to(output.dtype.element_ty), mask=mask)


def variant(form: str, epilogue: str, rows: int, floats: str = "fp16") -> Variant:
    """The kernel for a weight format, an epilogue and one of `TILES`, by its rows."""
    follows, tile = EPILOGUES[epilogue], TILES[rows]
    kind = f"*{floats}"
    weights = {"float": kind, "int8": "*i8", "int4": "*u8", "integer": "*i8"}
    outputs = outputs_of_tile(epilogue, rows)
    inputs = tile.inputs // 2 if form == "float" else tile.inputs
    return Variant(
        f"linear.{floats}.{form}.{epilogue}.{rows}",
        linear_kernel,
        {
            "output": "*fp32" if follows.full else kind,
            "x": "*i8" if form == "integer" else kind,
            "x_scale": "*fp32",
            "weight": weights[form],
            "scale": "*fp32",
            "bias": "*fp32",
            "residual": "*fp32",
            "rows": "i32",
            "outputs": "i32",
            "inputs": "i32:16",
        },
        {
            "FORM": form,
            "ACTIVATION": follows.activation,
            "GATED": follows.gated,
            "RESIDUAL": follows.residual,
            "BLOCK_M": rows,
            "BLOCK_N": outputs,
            "BLOCK_K": inputs,
        },
        warps=tile.warps,
        # Layers that end in the residual are narrow: their few programs ask for more at once.
        stages=tile.stages + 3 if follows.residual and rows <= FEW else tile.stages,
        streamed=int(outputs * inputs * _BYTES[form]) if rows <= FEW else 0,
    )


def linear(
    chosen: Variant,
    output: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    x_scale: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> None:
    """Launch over all rows of x; see above for shapes."""
    form, gated = chosen.constants["FORM"], bool(chosen.constants["GATED"])
    rows, inputs = x.shape
    wide = len(weight)
    assert inputs % GRAIN == 0
    assert weight.shape[1] * (2 if form == "int4" else 1) == inputs
    assert bias.shape == (wide,)
    assert form == "float" or scale.shape[0] == wide
    assert form != "int4" or scale.shape == (wide, inputs // GRAIN)
    assert output.shape == (rows, wide // 2 if gated else wide)
    assert (x_scale is not None) == (form == "integer")
    assert (residual is not None) == bool(chosen.constants["RESIDUAL"])
    for tensor in (output, x, weight, scale, bias, x_scale, residual):
        assert tensor is None or tensor.is_contiguous()
    outputs = output.shape[1]
    grid = (
        ceil_div(rows, int(chosen.constants["BLOCK_M"])),
        ceil_div(outputs, int(chosen.constants["BLOCK_N"])),
    )
    spare = bias
    chosen.launch(
        grid,
        output,
        x,
        spare if x_scale is None else x_scale,
        weight,
        scale,
        bias,
        spare if residual is None else residual,
        rows,
        outputs,
        inputs,
    )


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epilogue: str,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same in float64; x and weight multiplied by their scales already (see `dense`)."""
    follows = EPILOGUES[epilogue]
    y = x.double() @ weight.double().T + bias.double()
    if follows.activation == "gelu":
        y = torch.nn.functional.gelu(y)
    if follows.activation == "quick_gelu":
        y = y * torch.sigmoid(1.702 * y)
    if follows.gated:
        gate, up = y.chunk(2, dim=-1)
        y = torch.nn.functional.silu(gate) * up
    if residual is not None:
        y = y + residual.double()
    return y


def dense(form: str, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What a stored weight stands for: float64 [N, K]."""
    if form == "float":
        return weight.double()
    if form != "int4":
        return weight.double() * scale.double()[:, None]
    packed = weight.int().reshape(len(weight), -1, GRAIN // 2)
    groups = torch.cat((packed & 15, packed >> 4), dim=-1).double() - 8
    return (groups * scale.double()[..., None]).reshape(len(weight), -1)
