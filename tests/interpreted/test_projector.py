from __future__ import annotations

import pytest
import torch
from close import assert_close, noise

from idetex_edge.positions import vision_windows
from kernels.append import quantized
from kernels.norm import norm, reference
from kernels.norm import variant as norm_variant
from kernels.projector import Projector, reference_projector
from kernels.variant import FLOATS


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("output", [*FLOATS, "int8"])
@pytest.mark.parametrize("size", [80, 256])
def test_norm(kind: str, output: str, size: int) -> None:
    x = noise(3, size) * 1000 + 100
    weight, bias = noise(size, seed=1), noise(size, seed=2)
    scale = torch.empty(3)
    written = torch.empty(3, size, dtype=FLOATS.get(output, torch.int8))
    norm(norm_variant(kind, output, size), written, scale, x, weight, bias, 1e-6)
    got = written.double() * scale[:, None] if output == "int8" else written
    assert_close(got, reference(kind, x, weight, bias, 1e-6), output)


@pytest.mark.parametrize(("form", "kind"), [("float", "rms"), ("integer", "layer")])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (6, 10)])
def test_projector(form: str, kind: str, rows: int, columns: int) -> None:
    size, features = 32, 40
    windows = vision_windows(rows, columns, window_size=56, patch_size=14, merge_size=2)

    def layer(outputs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight = noise(outputs, 4 * size, seed=seed) * 0.1
        bias = noise(outputs, seed=seed)
        if form == "float":
            return weight.half(), torch.ones(outputs), bias
        return *quantized(weight), bias

    made = Projector(
        *(form, kind, noise(size, seed=1), noise(size, seed=2)),
        layer(4 * size, 3),
        layer(features, 4),
    )
    patches = noise(rows * columns, size)
    stream = torch.from_numpy(windows.reorder(patches.numpy()))
    order = torch.from_numpy(windows.inverse).int()
    got = made.project(stream, order, 1e-6, processors=1)
    assert_close(
        got, reference_projector(made, stream, order, 1e-6), "int8" if form == "integer" else "fp16"
    )
    # The raster order's own result: the windows left no trace.
    raster = torch.arange(len(order), dtype=torch.int32)
    torch.testing.assert_close(
        reference_projector(made, patches, raster, 1e-6),
        reference_projector(made, stream, order, 1e-6),
    )
