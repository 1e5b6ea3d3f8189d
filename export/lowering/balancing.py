"""SmoothQuant's balance: outliers moved from what a norm gives into the matrices that take it.

norm(x) / s times W * s is what norm(x) times W was; the norm's own weights take up 1/s, so the
graph stays as it is (arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from export.graphs.operators import DOMAIN
from export.graphs.rows import Array, lazy_tensor


def balance(model: ir.Model, factors: Mapping[str, Array]) -> None:
    """Divide the norms named by their factors [size], and multiply their readers' columns."""
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == "Norm" and node.name in factors:
            factor = factors[node.name or ""]
            for affine in node.inputs[2:]:
                _scale(affine, np.reciprocal(factor))
            for reader in _matrices(node.outputs[0]):
                _scale(reader.inputs[1], factor)


def readers(model: ir.Model) -> dict[str, list[str]]:
    """Name the matrices that read each norm, by the norm's name."""
    return {
        node.name: [reader.name or "" for reader in _matrices(node.outputs[0])]
        for node in model.graph
        if node.domain == DOMAIN and node.op_type == "Norm" and node.name
    }


def _matrices(value: ir.Value) -> Iterator[ir.Node]:
    for use in value.uses():
        if use.node.op_type == "Linear":
            yield use.node
        elif use.node.op_type in {"Gather", "Reshape"}:
            yield from _matrices(use.node.outputs[0])


def _scale(value: ir.Value | None, factor: Array) -> None:
    assert value is not None
    tensor = value.const_value
    assert tensor is not None
    # The last axis: a vector's only one, a matrix's columns.
    repeats = tensor.shape.numpy()[-1] // len(factor)
    value.const_value = lazy_tensor(
        lambda: (tensor.numpy() * np.tile(factor, repeats)).astype(np.float32),
        *(np.float32, tensor.shape.numpy(), tensor.name or ""),
    )
