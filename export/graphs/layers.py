"""The layers that both graphs are made of, in ONNX Runtime's fused forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir
from onnxscript import OpBuilder, nn

from export.graphs.matrices import CONTRIB, MATRICES, Rows, WeightSource, parameter
from idetex_edge.errors import ExportError

OPSETS: Final = {"": 23, CONTRIB: 1}
IR_VERSION: Final = 10


@dataclass(frozen=True, slots=True)
class Source:
    """Where a graph's weights come from, and how its matrices are stored (see `MATRICES`)."""

    weights: WeightSource
    matrices: str

    def vector(
        self, names: Sequence[str], size: int, share: tuple[int, int] = (0, 1)
    ) -> nn.Parameter:
        """Make a float32 parameter [size] of the named vectors, joined, or of a share of them."""
        return parameter(Rows(self.weights, names, (size,), share).lazy())


class Linear(nn.Module):
    """x W^T + b on the last axis; several matrices of the checkpoint side by side make one.

    `share` = (i, n) is the i-th of n equal parts of a matrix that the checkpoint keeps packed.
    """

    def __init__(
        self,
        source: Source,
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
        rows = Rows(source.weights, matrices, (outputs, inputs), share)
        self.matrix = MATRICES[source.matrices](rows)
        self.bias = source.vector(biases, outputs, share) if bias else None

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., inputs] to [.., outputs]."""
        return self.matrix(op, x, self.bias)


class Norm(nn.Module):
    """Root-mean-square norm, or layer norm where the checkpoint has a bias for it.

    Gives (norm(x + residual), x + residual) from one fused node, or (norm(x), x) where the
    residual is None.
    """

    def __init__(self, source: Source, name: str, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = source.vector([f"{name}.weight"], size)
        has_bias = f"{name}.bias" in source.weights
        self.bias = source.vector([f"{name}.bias"], size) if has_bias else None

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
        source: Source,
        name: str,
        size: int,
        inner: int,
        activation: str,
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(source, [f"{name}.gate_proj"], size, inner, bias=bias)
        self.up = Linear(source, [f"{name}.up_proj"], size, inner, bias=bias)
        self.down = Linear(source, [f"{name}.down_proj"], inner, size, bias=bias)

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., size] to [.., size]."""
        return self.down(
            op, op.Mul(activate(op, self.activation, self.gate(op, x)), self.up(op, x))
        )


class PlainMlp(nn.Module):
    """outer(act(inner(x))); `names` are the two layers in the checkpoint."""

    def __init__(
        self,
        source: Source,
        names: tuple[str, str],
        sizes: tuple[int, int, int],
        activation: str,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.inner = Linear(source, names[:1], sizes[0], sizes[1], bias=True)
        self.outer = Linear(source, names[1:], sizes[1], sizes[2], bias=True)

    def forward(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Map [.., sizes[0]] to [.., sizes[2]]."""
        return self.outer(op, activate(op, self.activation, self.inner(op, x)))
