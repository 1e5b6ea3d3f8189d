"""The layers that both halves of the model are made of, as launches on addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from idetex_edge.triton.kernel import Kernels
from idetex_edge.triton.memory import Weights

FLOATS: Final = "fp16"
HALF, FULL = 2, 4
"""Bytes of an activation, and of a number of the residual stream."""
FEW: Final = 16
"""Up to this many rows, a linear layer takes the kernel made for decoding."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Kernels and weights together. Addresses are of row-major arrays; rows are counted."""

    kernels: Kernels
    weights: Weights

    def linear(
        self, layer: str, output: int, x: int, rows: int, epilogue: str, residual: int = 0
    ) -> None:
        """Output = epilogue(x W^T + b); `residual` is the stream for "residual".

        x: FP16 [rows, inputs]; output: FP16, or float32 for "full" and "residual".
        """
        form, weight = self.weights.form(layer), f"{layer}.weight"
        wide, inputs = self.weights.shape(weight)
        inputs *= 2 if form == "int4" else 1
        outputs = wide // 2 if epilogue == "gated" else wide
        kind = "few" if rows <= FEW else "many"
        kernel = self.kernels[f"linear.{FLOATS}.{form}.{epilogue}.{kind}"]
        bias = self.weights[f"{layer}.bias"]
        scale = bias if form == "float" else self.weights[f"{layer}.scale"]
        grid = (-(-rows // kernel.rows), -(-outputs // kernel.outputs))
        kernel(
            grid,
            *(output, x, bias, self.weights[weight], scale, bias, residual or bias),
            *(rows, outputs, inputs),
        )

    def norm(self, layer: str, output: int, x: int, rows: int, kind: str, epsilon: float) -> None:
        """FP16 [rows, size] of the stream x, float32."""
        (size,) = self.weights.shape(f"{layer}.weight")
        block = max(256, 1 << (size - 1).bit_length())
        weight, bias = self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]
        # What an INT8 result's scales would be written to.
        spare = output
        self.kernels[f"norm.{kind}.{FLOATS}.{block}"](
            (rows, 1), output, spare, x, weight, bias, size, epsilon
        )
