"""Choosing the step of a matrix's 8-bit input: four methods propose, measured error decides."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from export.calibration.observe import Inputs
from export.graphs.rows import Array
from export.lowering.rounding import LARGEST, quantised, steps

_BINS: Final = 512
_PERCENTILE: Final = 99.99


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A matrix, its sampled inputs, their product, and the weight as 8 bits keep it."""

    inputs: Inputs
    expected: Array
    weight: Array

    @classmethod
    def of(cls, inputs: Inputs, weight: Array) -> Product:
        """Multiply [rows, inputs] by a weight [outputs, inputs], and round the weight."""
        rounded = quantised(weight, LARGEST) * steps(weight, LARGEST)
        return cls(inputs, inputs.rows @ weight.T, rounded)

    def error(self, step: float) -> float:
        """Measure ||q(x) q(W) - x W|| / ||x W|| with x rounded by a step."""
        rounded = np.clip(np.rint(self.inputs.rows / step), -LARGEST - 1, LARGEST) * np.float32(
            step
        )
        off = np.linalg.norm(rounded @ self.weight.T - self.expected)
        return float(off / max(float(np.linalg.norm(self.expected)), 1e-12))


def choose_step(inputs: Inputs, products: Sequence[Product]) -> tuple[float, str, list[float]]:
    """Choose one step for all products of an input: (step, method, the error of each product)."""
    limits = proposals(inputs)
    found = {
        method: [product.error(limit / LARGEST) for product in products]
        for method, limit in limits.items()
    }
    best = min(found, key=lambda method: sum(found[method]))
    return limits[best] / LARGEST, best, found[best]


def proposals(inputs: Inputs) -> Mapping[str, float]:
    """Propose the largest |x| that 8 bits should hold, by method; all of them above zero."""
    values = inputs.rows.ravel()
    if not np.abs(values).max():
        return {"min-max": max(inputs.largest, 1e-8)}
    return {
        "min-max": inputs.largest,
        "percentile": _collected("percentile", values),
        "entropy": _collected("entropy", values),
        "mse": _least_squares(values, inputs.largest),
    }


def _collected(method: str, values: Array) -> float:
    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=_BINS,
        num_quantized_bins=128,
        percentile=_PERCENTILE,
        scenario="same",
    )
    # It reports on stdout what it is doing.
    with redirect_stdout(io.StringIO()):
        collector.collect({"x": values})
        lowest, highest, *_ = collector.compute_collection_result()["x"]
    return max(abs(float(lowest)), abs(float(highest)), 1e-8)


def _least_squares(values: Array, largest: float) -> float:
    """Scan shares of the largest value for the least squared error of rounding."""
    errors: dict[float, float] = {}
    for share in np.linspace(0.2, 1.0, 41):
        step = largest * float(share) / LARGEST
        rounded = np.clip(np.rint(values / step), -LARGEST - 1, LARGEST) * np.float32(step)
        errors[largest * float(share)] = float(np.square(rounded - values).sum())
    return min(errors, key=lambda limit: errors[limit])
