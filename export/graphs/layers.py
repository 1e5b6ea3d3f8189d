"""The layers that both graphs are made of (see `export.graphs.operators`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir
from onnxscript import OpBuilder, nn

from export.graphs.operators import DOMAIN
from export.graphs.rows import Rows, WeightSource
from idetex_edge.errors import ExportError

IR_VERSION: Final = 10
ACTIVATIONS: Final = ("silu", "quick_gelu", "gelu")


def parameter(data: ir.TensorProtocol) -> nn.Parameter:
    """Make a parameter that holds a tensor."""
    return nn.Parameter(data.shape.numpy(), data=data)


def vector(
    weights: WeightSource, names: Sequence[str], size: int, share: tuple[int, int] = (0, 1)
) -> nn.Parameter:
    """Make a float32 parameter [size] of the named vectors, joined, or of a share of them."""
    return parameter(Rows(weights, names, (size,), share).lazy())


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
        self.layer = names[0] + (f".{share[0]}" if share[1] > 1 else "")
        self.weight = parameter(Rows(weights, matrices, (outputs, inputs), share).lazy())
        self.bias = vector(weights, biases, outputs, share) if bias else None

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., inputs] to [.., outputs]."""
        affine = [self.weight] if self.bias is None else [self.weight, self.bias]
        return op.Linear(x, *affine, _domain=DOMAIN, _name=self.layer)


class Norm(nn.Module):
    """Root-mean-square norm, or layer norm where the checkpoint has a bias for it.

    Gives (norm(x + residual), x + residual), or (norm(x), x) where the residual is None.
    """

    def __init__(self, weights: WeightSource, name: str, size: int, epsilon: float) -> None:
        super().__init__()
        self.layer, self.epsilon = name, epsilon
        self.weight = vector(weights, [f"{name}.weight"], size)
        has_bias = f"{name}.bias" in weights
        self.bias = vector(weights, [f"{name}.bias"], size) if has_bias else None

    def forward(
        self, op: OpBuilder, x: ir.Value, residual: ir.Value | None = None
    ) -> tuple[ir.Value, ir.Value]:
        """Norm the last axis of x; both results have x's shape."""
        affine = [self.weight] if self.bias is None else [self.weight, self.bias]
        normed, total = op.Norm(
            *(x, residual, *affine),
            epsilon=self.epsilon,
            _domain=DOMAIN,
            _name=self.layer,
            _outputs=2,
        )
        return normed, total


def activate(op: OpBuilder, name: str, x: ir.Value) -> ir.Value:
    """Apply an activation by its Hugging Face name; raises ExportError for an unknown one."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ExportError(f"activation {name!r} is not supported; {known} are")
    return op.Activate(x, kind=name, _domain=DOMAIN)


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
