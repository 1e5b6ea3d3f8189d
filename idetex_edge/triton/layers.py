"""The layers that both halves of the model are made of, as launches on addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idetex_edge.triton.kernel import Kernels
from idetex_edge.triton.memory import Weights

FLOATS: Final = "fp16"
HALF, FULL = 2, 4
"""Bytes of an activation, and of a number of the residual stream."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Addresses of rows in INT8 [rows, inputs], and of what to multiply each by, float32 [rows]."""

    levels: int
    steps: int


@dataclass(frozen=True, slots=True)
class Layers:
    """Kernels and weights together. Addresses are of row-major arrays; rows are counted."""

    kernels: Kernels
    weights: Weights

    def linear(
        self, layer: str, output: int, x: int | Rounded, rows: int, epilogue: str, residual: int = 0
    ) -> None:
        """Output = epilogue(x W^T + b); `residual` is the stream for "residual".

        x: FP16 [rows, inputs], or INT8 for an INT8 matrix (see `entry`); output: FP16, or float32
        for "full" and "residual".
        """
        form, weight = self.weights.form(layer), f"{layer}.weight"
        if isinstance(x, Rounded):
            form = "integer"
        wide, inputs = self.weights.shape(weight)
        inputs *= 2 if form == "int4" else 1
        outputs = wide // 2 if epilogue == "gated" else wide
        kernel = self.kernels.tile(f"linear.{FLOATS}.{form}.{epilogue}", rows, outputs)
        bias = self.weights[f"{layer}.bias"]
        scale = bias if form == "float" else self.weights[f"{layer}.scale"]
        grid = (-(-rows // kernel.rows), -(-outputs // kernel.outputs))
        levels, steps = (x.levels, x.steps) if isinstance(x, Rounded) else (x, bias)
        kernel(
            grid,
            *(output, levels, steps, self.weights[weight], scale, bias, residual or bias),
            *(rows, outputs, inputs),
        )

    def entry(self, layer: str, x: int, spare: Rounded) -> int | Rounded:
        """Where what a layer reads is to be written: `spare` for an INT8 matrix, else x."""
        return spare if self.weights.form(layer) == "int8" else x

    def entered(self, layer: str, x: int, rows: int, spare: Rounded) -> int | Rounded:
        """What a layer reads of x, FP16 [rows, inputs]: rounded to `spare` for an INT8 matrix."""
        if self.weights.form(layer) != "int8":
            return x
        _, inputs = self.weights.shape(f"{layer}.weight")
        self.kernels[f"quantize.{FLOATS}"]((rows, 1), spare.levels, spare.steps, x, inputs)
        return spare

    def norm(
        self, layer: str, output: int | Rounded, x: int, rows: int, kind: str, epsilon: float
    ) -> None:
        """FP16 [rows, size] of the stream x, float32; or INT8, each row by itself."""
        (size,) = self.weights.shape(f"{layer}.weight")
        block = max(256, 1 << (size - 1).bit_length())
        weight, bias = self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]
        whole = isinstance(output, Rounded)
        # FP16 has no scales, and nothing is written to their place.
        levels, steps = (output.levels, output.steps) if whole else (output, output)
        self.kernels[f"norm.{kind}.{'int8' if whole else FLOATS}.{block}"](
            (rows, 1), levels, steps, x, weight, bias, size, epsilon
        )
