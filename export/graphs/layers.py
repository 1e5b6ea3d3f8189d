"""The layers that both graphs are made of, in ONNX Runtime's fused forms.

Parameters are lazy: each one reads, converts and packs its checkpoint tensors when the graph is
written, so no more than one is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import OpBuilder, nn

from idetex_edge.errors import ExportError

CONTRIB: Final = "com.microsoft"
OPSETS: Final = {"": 23, CONTRIB: 1}
IR_VERSION: Final = 10


class WeightSource(Protocol):
    """Where tensors come from (see `export.checkpoint.Weights`)."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        ...

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read one tensor as float32."""
        ...


def tensor(
    weights: WeightSource,
    names: Sequence[str],
    shape: Sequence[int],
    *,
    transpose: bool = False,
    share: tuple[int, int] = (0, 1),
) -> ir.LazyTensor:
    """Describe a float32 tensor of the given shape: the named ones joined along their first axis.

    `share` = (i, n) takes the i-th of n equal parts of the first axis. Axes behind the first are
    flattened into one where `shape` has two entries; `transpose` then stores [inputs, outputs],
    the layout that MatMul reads. Raises ExportError when the shapes in the checkpoint are not
    those that its config.json implies.
    """
    index, shares = share
    stored = tuple(reversed(shape)) if transpose else tuple(shape)
    whole = (stored[0] * shares, math.prod(stored[1:]))
    shapes = [weights.shape(name) for name in names]
    if {math.prod(s[1:]) for s in shapes} != {whole[1]} or sum(s[0] for s in shapes) != whole[0]:
        raise ExportError(
            f"tensor {names[0]} has shape {list(shapes[0])}, which does not fit config.json; "
            "the checkpoint's files are not of one model"
        )

    def read() -> ir.TensorProtocol:
        rows = np.concatenate([weights.read(name) for name in names]).reshape(whole)
        part = rows[index * stored[0] : (index + 1) * stored[0]].reshape(stored)
        return ir.tensor(np.ascontiguousarray(part.T if transpose else part))

    return ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), name=names[0])


def parameter(data: ir.TensorProtocol) -> nn.Parameter:
    """Make a parameter that holds a tensor."""
    return nn.Parameter(data.shape.numpy(), data=data)


class Linear(nn.Module):
    """x W^T + b on the last axis; several matrices of the checkpoint side by side make one.

    `share` = (i, n) is the i-th of n equal parts of a matrix that the checkpoint keeps packed.
    """

    def __init__(
        self,
        weights: WeightSource,
        names: Sequence[str],
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        matrices = [f"{name}.weight" for name in names]
        biases = [f"{name}.bias" for name in names]
        self.weight = parameter(
            tensor(weights, matrices, (inputs, outputs), transpose=True, share=share)
        )
        self.bias = parameter(tensor(weights, biases, (outputs,), share=share)) if bias else None

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Multiply [.., inputs] to [.., outputs]."""
        product = op.MatMul(x, self.weight)
        return product if self.bias is None else op.Add(product, self.bias)


class Norm(nn.Module):
    """Root-mean-square norm, or layer norm where the checkpoint has a bias for it.

    Gives (norm(x + residual), x + residual) from one fused node, or (norm(x), x) where the
    residual is None.
    """

    def __init__(self, weights: WeightSource, name: str, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = parameter(tensor(weights, [f"{name}.weight"], (size,)))
        has_bias = f"{name}.bias" in weights
        self.bias = parameter(tensor(weights, [f"{name}.bias"], (size,))) if has_bias else None

    def forward(
        self, op: OpBuilder, x: ir.Value, residual: ir.Value | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """Norm the last axis of x; both results have x's shape."""
        affine = [self.weight] if self.bias is None else [self.weight, self.bias]
        kind = "Simplified" if self.bias is None else ""
        if residual is None:
            norm = getattr(op, f"{kind}LayerNormalization")
            return norm(x, *affine, axis=-1, epsilon=self.epsilon), x
        norm = getattr(op, f"Skip{kind}LayerNormalization")
        normed, _, _, total = norm(
            x, residual, *affine, epsilon=self.epsilon, _domain=CONTRIB, _outputs=4
        )
        return normed, total


_SIGMOID_SLOPES: Final = {"silu": 1.0, "quick_gelu": 1.702}


def activate(op: OpBuilder, name: str, x: ir.Value) -> ir.Value:
    """Apply an activation by its Hugging Face name; raises ExportError for an unknown one."""
    if name in _SIGMOID_SLOPES:
        return op.QuickGelu(x, alpha=_SIGMOID_SLOPES[name], _domain=CONTRIB)
    if name == "gelu":
        return op.Gelu(x)
    known = ", ".join((*_SIGMOID_SLOPES, "gelu"))
    raise ExportError(f"activation {name!r} is not supported; {known} are")


class GatedMlp(nn.Module):
    """down(act(gate(x)) * up(x)).

    Gate and up stay two matrices: packed into one, splitting their product costs more than the
    second multiplication's overhead, except for a single row.
    """

    def __init__(
        self,
        weights: WeightSource,
        name: str,
        size: int,
        inner: int,
        activation: str,
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(weights, [f"{name}.gate_proj"], size, inner, bias=bias)
        self.up = Linear(weights, [f"{name}.up_proj"], size, inner, bias=bias)
        self.down = Linear(weights, [f"{name}.down_proj"], inner, size, bias=bias)

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., size] to [.., size]."""
        return self.down(
            op, op.Mul(activate(op, self.activation, self.gate(op, x)), self.up(op, x))
        )


class PlainMlp(nn.Module):
    """outer(act(inner(x))); `names` are the two layers in the checkpoint."""

    def __init__(
        self,
        weights: WeightSource,
        names: tuple[str, str],
        sizes: tuple[int, int, int],
        activation: str,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.inner = Linear(weights, names[:1], sizes[0], sizes[1], bias=True)
        self.outer = Linear(weights, names[1:], sizes[1], sizes[2], bias=True)

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., sizes[0]] to [.., sizes[2]]."""
        return self.outer(op, activate(op, self.activation, self.inner(op, x)))
