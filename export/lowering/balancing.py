"""SmoothQuant's balance: outliers moved from a matrix's input into its weights.

x / s times W * s is what x times W was, and 1/s goes into the weights of what gives x, so the graph
stays as it is (arXiv 2211.10438). A source is a norm, or the linear half of a gated MLP: `down`
reads the product of `up` with the activated gate, and `up` has a scale for each output, so that
dividing them costs it no accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from export.graphs.operators import DOMAIN
from export.graphs.rows import Array, lazy_tensor

_AFFINE: Final = {"Norm": 2, "Linear": 1}
"""Where the weights of a source begin among its inputs."""

_PASSING: Final = {"Norm": {"Gather", "Reshape"}, "Linear": {"Mul"}}
"""What may stand between a source and the matrices that read it, and scales as it does."""


@dataclass(frozen=True, slots=True)
class Source:
    """What gives an input that can be balanced: how many values, and the matrices that read it."""

    size: int
    readers: Sequence[str]


def sources(model: ir.Model) -> dict[str, Source]:
    """Find all sources of a graph that is not lowered yet, by name."""
    found: dict[str, Source] = {}
    for node in _candidates(model):
        affine = node.inputs[_AFFINE[node.op_type]]
        readers = [reader.name or "" for reader in _readers(node.outputs[0], node.op_type)]
        if readers and affine is not None and affine.shape is not None:
            found[node.name or ""] = Source(affine.shape.numpy()[0], readers)
    return found


def balance(model: ir.Model, factors: Mapping[str, Array]) -> None:
    """Divide the sources named by their factors [size], and multiply their readers' columns."""
    for node in _candidates(model):
        if node.name in factors:
            factor = factors[node.name or ""]
            for affine in node.inputs[_AFFINE[node.op_type] :]:
                _scale(affine, np.reciprocal(factor), axis=0)
            for reader in _readers(node.outputs[0], node.op_type):
                _scale(reader.inputs[1], factor, axis=1)


def _candidates(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.domain == DOMAIN and node.op_type in _AFFINE)


def _readers(value: ir.Value, kind: str) -> Iterator[ir.Node]:
    for use in value.uses():
        if use.node.op_type == "Linear":
            yield use.node
        elif use.node.op_type in _PASSING[kind]:
            yield from _readers(use.node.outputs[0], kind)


def _scale(value: ir.Value | None, factor: Array, axis: int) -> None:
    assert value is not None
    tensor = value.const_value
    assert tensor is not None
    shape = tensor.shape.numpy()
    # Inputs of several norms side by side share one factor.
    wide = np.tile(factor, shape[axis] // len(factor))
    scale = wide[:, None] if axis == 0 and len(shape) == 2 else wide
    value.const_value = lazy_tensor(
        lambda: (tensor.numpy() * scale).astype(np.float32), np.float32, shape, tensor.name or ""
    )
