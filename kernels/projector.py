"""The vision projector (patch merger): norm, 2x2 gather, linear, GELU, linear.

For N patches of size H, U = 4 patches to a token, T = N / U tokens:

    x        float32 [N, H]         the encoder's residual stream, in the order of its windows
    order    int32 [T]              which token of x each token of the output is: undoes the windows
    weight   float32 [H], bias float32 [H] for LayerNorm
    rows     float or int8 [T, U * H]   what the first linear layer takes
    scale    float32 [T]            for INT8: what to multiply each row by

This kernel norms, gathers, undoes the window order and quantises while it reads the stream once.
The two linear layers are `kernels.linear`: the first with GELU as its epilogue, so that nothing but
its rounded result is written in between. Norm and first layer stay two kernels: in one, each of the
layer's column tiles would norm the same patches again.
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from kernels import linear, norm, quantize
from kernels.append import quantized
from kernels.quantize import rounded, step_of
from kernels.variant import Variant, power_of_two


@triton.jit
def merge_patches_kernel(
    rows,
    scale,
    x,
    order,
    weight,
    bias,
    size,
    epsilon,
    LAYER: tl.constexpr,
    QUANTIZED: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    source = tl.load(order + token).to(tl.int64)
    patch, i = tl.arange(0, UNIT), tl.arange(0, BLOCK)
    used = (i < size)[None, :] & (patch >= 0)[:, None]
    inner = patch[:, None] * size + i[None, :]
    y = tl.load(x + source * UNIT * size + inner, mask=used, other=0.0)
    if LAYER:
        y = tl.where(used, y - (tl.sum(y, 1) / size)[:, None], 0.0)
    y = y * (1.0 / tl.sqrt(tl.sum(y * y, 1) / size + epsilon))[:, None]
    y = y * tl.load(weight + i, mask=i < size, other=0.0)[None, :]
    if LAYER:
        y += tl.load(bias + i, mask=i < size, other=0.0)[None, :]
    if QUANTIZED:
        step = step_of(tl.max(tl.max(tl.abs(y), 1), 0))
        y = rounded(y / step)
        tl.store(scale + token, step)
    tl.store(rows + token * UNIT * size + inner, y.to(rows.dtype.element_ty), mask=used)


def variant(kind: str, output: str, size: int, unit: int = 4) -> Variant:
    """The kernel for "rms" or "layer", to "fp16", "bf16" or "int8", for patches of up to `size`."""
    block = power_of_two(size, 64)
    return Variant(
        f"merge_patches.{kind}.{output}.{unit}x{block}",
        merge_patches_kernel,
        {
            "rows": "*i8" if output == "int8" else f"*{output}",
            "scale": "*fp32",
            "x": "*fp32",
            "order": "*i32",
            "weight": "*fp32",
            "bias": "*fp32",
            "size": "i32:16",
            "epsilon": "fp32",
        },
        {
            "LAYER": kind == "layer",
            "QUANTIZED": output == "int8",
            "UNIT": unit,
            "BLOCK": block,
        },
        warps=4 if block <= 512 else 8,
    )


def merge_patches(
    chosen: Variant,
    rows: torch.Tensor,
    scale: torch.Tensor,
    x: torch.Tensor,
    order: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
) -> None:
    """Launch over all tokens; `order` must be a permutation of them."""
    patches, size = x.shape
    unit = int(chosen.constants["UNIT"])
    assert patches == unit * len(order)
    assert rows.shape == (len(order), unit * size)
    assert weight.shape == bias.shape == (size,)
    assert size <= int(chosen.constants["BLOCK"])
    assert size % 16 == 0
    assert not chosen.constants["QUANTIZED"] or scale.shape == (len(order),)
    assert all(tensor.is_contiguous() for tensor in (rows, scale, x, order, weight, bias))
    chosen.launch((len(order),), rows, scale, x, order, weight, bias, size, epsilon)


@dataclass(frozen=True, slots=True)
class Projector:
    """A whole projector's weights, as `kernels.linear` takes them for `form`.

    form: "float" or "integer". norm: "rms" or "layer".
    """

    form: str
    norm: str
    norm_weight: torch.Tensor
    norm_bias: torch.Tensor
    inner: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    outer: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    floats: str = "fp16"

    def project(
        self, x: torch.Tensor, order: torch.Tensor, epsilon: float, processors: int
    ) -> torch.Tensor:
        """Features of a picture, float32 [T, text hidden], in the order that `order` restores.

        processors: the GPU's multiprocessors, for `kernels.linear.tile_of`.
        """
        tokens, unit = len(order), len(x) // len(order) * x.shape[1]
        whole = self.form == "integer"
        kind = torch.float16 if self.floats == "fp16" else torch.bfloat16

        def empty(width: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty((tokens, width), dtype=dtype, device=x.device)

        rows, scale = empty(unit, torch.int8 if whole else kind), empty(1, torch.float32)[:, 0]
        gather = variant(self.norm, "int8" if whole else self.floats, x.shape[1])
        merge_patches(gather, rows, scale, x, order, self.norm_weight, self.norm_bias, epsilon)
        between = empty(unit, kind)

        def layer(epilogue: str, width: int) -> Variant:
            rows = linear.tile_of(self.form, epilogue, tokens, width, processors)
            return linear.variant(self.form, epilogue, rows, self.floats)

        linear.linear(
            layer("gelu", unit), between, rows, *self.inner, x_scale=scale if whole else None
        )
        features = empty(len(self.outer[0]), torch.float32)
        if whole:
            quantize.quantize(quantize.variant(self.floats), rows, scale, between)
        linear.linear(
            layer("full", len(self.outer[0])),
            features,
            rows if whole else between,
            *self.outer,
            x_scale=scale if whole else None,
        )
        return features


def reference(
    kind: str,
    x: torch.Tensor,
    order: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """What the first linear layer takes, in float64 [T, U * H], not quantised."""
    normed = norm.reference(kind, x, weight, bias, epsilon)
    return normed.reshape(len(order), -1)[order.long()]


def reference_projector(
    projector: Projector, x: torch.Tensor, order: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """The whole projector in float64 [T, text hidden]; "integer" rounds rows to INT8 as it does."""
    form = projector.form
    rows = reference(projector.norm, x, order, projector.norm_weight, projector.norm_bias, epsilon)
    for (matrix, scale, bias), epilogue in ((projector.inner, "gelu"), (projector.outer, "full")):
        if form == "integer":
            levels, steps = quantized(rows)
            rows = levels.double() * steps.double()[:, None]
        rows = linear.reference(rows, linear.dense(form, matrix, scale), bias, epilogue)
    return rows
