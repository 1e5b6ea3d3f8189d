"""RMSNorm or LayerNorm of the residual stream, to the activations' type or to INT8 with scales.

For m rows of size H, H a multiple of 2:

    x        float32 [m, H]          the residual stream
    weight   float32 [H]
    bias     float32 [H]             for LayerNorm
    output   float or int8 [m, H]
    scale    float32 [m]             for INT8: what to multiply each row by (see `kernels.append`)

The residual is added by the linear layer before (see `kernels.linear`), so a norm reads the stream
once and writes half of what it reads.
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.quantize import rounded, step_of
from kernels.variant import Variant, power_of_two


@triton.jit(do_not_specialize=["size"])
def norm_kernel(
    output,
    scale,
    x,
    weight,
    bias,
    size,
    epsilon,
    LAYER: tl.constexpr,
    QUANTIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    used = i < size
    y = tl.load(x + row * size + i, mask=used, other=0.0)
    if LAYER:
        y = tl.where(used, y - tl.sum(y, 0) / size, 0.0)
    y = y * (1.0 / tl.sqrt(tl.sum(y * y, 0) / size + epsilon))
    y = y * tl.load(weight + i, mask=used, other=0.0)
    if LAYER:
        y += tl.load(bias + i, mask=used, other=0.0)
    if QUANTIZED:
        step = step_of(tl.max(tl.abs(y), 0))
        y = rounded(y / step)
        tl.store(scale + row, step)
    tl.store(output + row * size + i, y.to(output.dtype.element_ty), mask=used)


def variant(kind: str, output: str, size: int) -> Variant:
    """The kernel for "rms" or "layer", to "fp16", "bf16" or "int8", for rows of up to `size`."""
    block = power_of_two(size, 256)
    return Variant(
        f"norm.{kind}.{output}.{block}",
        norm_kernel,
        {
            "output": "*i8" if output == "int8" else f"*{output}",
            "scale": "*fp32",
            "x": "*fp32",
            "weight": "*fp32",
            "bias": "*fp32",
            "size": "i32",
            "epsilon": "fp32",
        },
        {"LAYER": kind == "layer", "QUANTIZED": output == "int8", "BLOCK": block},
        warps=4 if block <= 2048 else 8,
    )


def norm(
    chosen: Variant,
    output: torch.Tensor,
    scale: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
) -> None:
    """Launch over all rows."""
    rows, size = x.shape
    assert output.shape == x.shape
    assert weight.shape == bias.shape == (size,)
    assert size <= int(chosen.constants["BLOCK"])
    assert not chosen.constants["QUANTIZED"] or scale.shape == (rows,)
    assert all(tensor.is_contiguous() for tensor in (output, scale, x, weight, bias))
    chosen.launch((rows,), output, scale, x, weight, bias, size, epsilon)


def reference(
    kind: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """The same in float64 [m, H], not quantised."""
    y = x.double()
    if kind == "layer":
        return torch.nn.functional.layer_norm(
            y, y.shape[-1:], weight.double(), bias.double(), epsilon
        )
    return y * torch.rsqrt((y * y).mean(-1, keepdim=True) + epsilon) * weight.double()
