"""INT8 by row, for the integer products of `kernels.linear`.

For m rows of size K:

    x        float [m, K]
    output   int8 [m, K]     symmetric -127..127
    scale    float32 [m]     max|x| / 127 of the row, 1 where all are zero
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.variant import Variant


@triton.jit
def step_of(largest):
    """The step of values of which the largest magnitude is this."""
    return tl.where(largest > 0, largest / 127.0, 1.0)


@triton.jit
def rounded(y):
    """Half away from zero, once truncated: adding half needs no rounding library."""
    return tl.where(y < 0, y - 0.5, y + 0.5)


@triton.jit
def quantize_kernel(output, scale, x, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    top = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, size, BLOCK):
        y = tl.load(x + row * size + begin + i, mask=begin + i < size, other=0.0)
        top = tl.maximum(top, tl.abs(y.to(tl.float32)))
    step = step_of(tl.max(top, 0))
    tl.store(scale + row, step)
    for begin in range(0, size, BLOCK):
        used = begin + i < size
        y = tl.load(x + row * size + begin + i, mask=used, other=0.0).to(tl.float32) / step
        tl.store(output + row * size + begin + i, rounded(y).to(tl.int8), mask=used)


def variant(floats: str = "fp16") -> Variant:
    """The kernel for rows of a type."""
    return Variant(
        f"quantize.{floats}",
        quantize_kernel,
        {"output": "*i8", "scale": "*fp32", "x": f"*{floats}", "size": "i32:16"},
        {"BLOCK": 1024},
    )


def quantize(chosen: Variant, output: torch.Tensor, scale: torch.Tensor, x: torch.Tensor) -> None:
    """Launch over all rows; the plain reference is `kernels.append.quantized`."""
    rows, size = x.shape
    assert output.shape == x.shape
    assert scale.shape == (rows,)
    assert size % 16 == 0
    assert all(tensor.is_contiguous() for tensor in (output, scale, x))
    chosen.launch((rows,), output, scale, x, size)
