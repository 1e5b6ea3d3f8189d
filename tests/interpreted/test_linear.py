from __future__ import annotations

import pytest
import torch
from close import assert_close, noise

from kernels.append import quantized
from kernels.linear import EPILOGUES, FORMS, dense, linear, reference, tile_of, variant
from kernels.packing import pack_int4
from kernels.quantize import quantize
from kernels.quantize import variant as quantize_variant
from kernels.variant import FLOATS


def stored(form: str, outputs: int, inputs: int, kind: torch.dtype) -> tuple[torch.Tensor, ...]:
    """A random matrix in a form, and its scales."""
    weight = noise(outputs, inputs) * inputs**-0.5
    if form == "float":
        return weight.to(kind), torch.ones(outputs)
    return pack_int4(weight) if form == "int4" else quantized(weight)


def multiply(
    form: str, epilogue: str, rows: int, outputs: int, inputs: int, floats: str = "fp16"
) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer by the kernel and by the reference."""
    follows, kind = EPILOGUES[epilogue], FLOATS[floats]
    weight, scale = stored(form, outputs, inputs, kind)
    bias = noise(outputs, seed=5)
    x, x_scale = noise(rows, inputs, kind=kind, seed=6), None
    seen = x
    if form == "integer":
        levels, x_scale = torch.empty(rows, inputs, dtype=torch.int8), torch.empty(rows)
        quantize(quantize_variant(floats), levels, x_scale, x)
        x, seen = levels, levels.double() * x_scale.double()[:, None]
    width = outputs // 2 if follows.gated else outputs
    residual = noise(rows, width, seed=7) if follows.residual else None
    expected = reference(seen, dense(form, weight, scale), bias, epilogue, residual)
    output = torch.empty(rows, width, dtype=torch.float32 if follows.full else kind)
    if residual is not None:
        output = residual  # In place, as the residual stream is.
    tile = tile_of(form, epilogue, rows, width, processors=1)
    linear(
        variant(form, epilogue, tile, floats),
        output,
        x,
        weight,
        scale,
        bias,
        x_scale=x_scale,
        residual=residual,
    )
    return output, expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_forms_and_epilogues(form: str, epilogue: str) -> None:
    got, expected = multiply(form, epilogue, rows=3, outputs=38, inputs=128)
    assert_close(got, expected, "fp16")


@pytest.mark.parametrize(("form", "rows"), [("int8", 1), ("int4", 16), ("float", 65)])
def test_rows_and_bfloat16(form: str, rows: int) -> None:
    got, expected = multiply(form, "plain", rows, outputs=70, inputs=64, floats="bf16")
    assert_close(got, expected, "bf16")


@pytest.mark.parametrize("floats", FLOATS)
def test_rows_to_int8(floats: str) -> None:
    x = noise(3, 1040, kind=FLOATS[floats])
    x[1] = 0
    levels, scale = torch.empty(3, 1040, dtype=torch.int8), torch.empty(3)
    quantize(quantize_variant(floats), levels, scale, x)
    expected, steps = quantized(x)
    torch.testing.assert_close(scale, steps, rtol=1e-6, atol=0)
    assert int((levels.int() - expected.int()).abs().max()) <= 1
    assert float((levels != expected).float().mean()) < 0.01
    assert scale[1] == 1
    assert not levels[1].any()


def test_int4_keeps_whole_levels() -> None:
    levels = torch.arange(-7, 8).repeat(128)[: 2 * 9 * 64].reshape(18, 64).float()
    levels[:, 0] = 7
    packed, scale = pack_int4(levels * 0.25)
    torch.testing.assert_close(dense("int4", packed, scale), levels.double() * 0.25)
