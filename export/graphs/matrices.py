"""Weight matrices: how they are read from a checkpoint, stored in a graph, and multiplied by.

Parameters are lazy: each one reads, converts and packs its checkpoint tensors when the graph is
written, so no more than one is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxscript import OpBuilder, nn

from idetex_edge.errors import ExportError

CONTRIB: Final = "com.microsoft"

DYNAMIC_LIMIT: Final = 64
"""Largest weight of `DynamicInt8Matrix`. Not 127: x86 without VNNI adds two products of an
unsigned and a signed byte in 16 bits, and 255 * 64 * 2 is the most that they hold."""

BLOCK: Final = 64
"""Weights of `BlockInt8Matrix` that share a scale."""

Array = npt.NDArray[np.float32]


class WeightSource(Protocol):
    """Where tensors come from (see `export.checkpoint.Weights`)."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Give a tensor's shape without reading it."""
        ...

    def read(self, name: str) -> Array:
        """Read one tensor as float32."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one or more tensors of a checkpoint, as one float32 array of a given shape.

    The named tensors are joined along their first axis; `share` = (i, n) takes the i-th of n equal
    parts of it. Axes behind the first are flattened into one where `shape` has two entries.
    """

    weights: WeightSource
    names: Sequence[str]
    shape: tuple[int, ...]
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        """Raise ExportError when the checkpoint's shapes are not those that config.json implies."""
        shapes = [self.weights.shape(name) for name in self.names]
        rows = sum(shape[0] for shape in shapes)
        columns = {math.prod(shape[1:]) for shape in shapes}
        if (rows, columns) != (self.shape[0] * self.share[1], {math.prod(self.shape[1:])}):
            raise ExportError(
                f"tensor {self.names[0]} has shape {list(shapes[0])}, which does not fit "
                "config.json; the checkpoint's files are not of one model"
            )

    def read(self) -> Array:
        """Read the tensors and put them together."""
        rows = np.concatenate([self.weights.read(name) for name in self.names])
        first = self.share[0] * self.shape[0]
        return rows[first : first + self.shape[0]].reshape(self.shape)

    def lazy(self, dtype: npt.DTypeLike = np.float32) -> ir.LazyTensor:
        """Describe them as a tensor of `dtype` that is read when it is written."""
        return _lazy(lambda: self.read().astype(dtype), dtype, self.shape, self.names[0])


def parameter(data: ir.TensorProtocol) -> nn.Parameter:
    """Make a parameter that holds a tensor."""
    return nn.Parameter(data.shape.numpy(), data=data)


def _lazy(
    read: Callable[[], npt.NDArray[np.generic]],
    dtype: npt.DTypeLike,
    shape: Sequence[int],
    name: str,
) -> ir.LazyTensor:
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(read())),
        dtype=ir.DataType.from_numpy(np.dtype(dtype)),
        shape=ir.Shape(shape),
        name=name,
    )


class FloatMatrix(nn.Module):
    """x W^T + b in FP32; stored [inputs, outputs], the layout that MatMul reads."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        shape = tuple(reversed(rows.shape))

        def transposed() -> Array:
            return rows.read().T

        self.weight = parameter(_lazy(transposed, np.float32, shape, rows.names[0]))

    def forward(self, op: OpBuilder, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Map [.., inputs] to [.., outputs]."""
        product = op.MatMul(x, self.weight)
        return product if bias is None else op.Add(product, bias)


class DynamicInt8Matrix(nn.Module):
    """x W^T + b in 8-bit whole numbers: W with a scale for each output, x with one for all of it.

    The fastest form for many rows. A row's result depends on its neighbours' range, so what goes
    through one call must belong together, as the patches of a picture do.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        outputs, inputs = rows.shape

        def codes() -> npt.NDArray[np.int8]:
            whole = rows.read()
            return np.rint(whole / _steps(whole, DYNAMIC_LIMIT)).astype(np.int8).T

        def scales() -> Array:
            return _steps(rows.read(), DYNAMIC_LIMIT)[:, 0]

        name = rows.names[0]
        self.weight = parameter(_lazy(codes, np.int8, (inputs, outputs), name))
        self.scale = parameter(_lazy(scales, np.float32, (outputs,), f"{name}.scale"))

    def forward(self, op: OpBuilder, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Map [.., inputs] to [.., outputs]."""
        return op.DynamicQuantizeMatMul(x, self.weight, self.scale, None, bias, _domain=CONTRIB)


class BlockInt8Matrix(nn.Module):
    """x W^T + b in 8-bit whole numbers with a scale for every 64 of a row, in W and in x alike.

    Close to FP32, and each row's result is its own, whatever it is batched with.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.outputs, self.inputs = rows.shape
        shape = (self.outputs, -(-self.inputs // BLOCK), BLOCK)

        def blocks() -> Array:
            whole = rows.read()
            padded = np.zeros((self.outputs, shape[1] * BLOCK), np.float32)
            padded[:, : self.inputs] = whole
            return padded.reshape(shape)

        def codes() -> npt.NDArray[np.uint8]:
            whole = blocks()
            return (np.rint(whole / _steps(whole, 127)) + 128).astype(np.uint8)

        def scales() -> Array:
            return _steps(blocks(), 127)[..., 0]

        name = rows.names[0]
        self.weight = parameter(_lazy(codes, np.uint8, shape, name))
        self.scale = parameter(_lazy(scales, np.float32, shape[:2], f"{name}.scale"))

    def forward(self, op: OpBuilder, x: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Map [.., inputs] to [.., outputs]."""
        # accuracy_level 4: x is rounded to 8 bits too; without it the kernel is many times slower.
        return op.MatMulNBits(
            *(x, self.weight, self.scale, None, None, bias),
            K=self.inputs,
            N=self.outputs,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
            _domain=CONTRIB,
        )


def _steps(values: Array, limit: int) -> Array:
    """Give the step that maps each last axis to -limit..limit, [.., 1]; 1 where it is all zeros."""
    steps = np.abs(values).max(axis=-1, keepdims=True) / np.float32(limit)
    return np.where(steps == 0, np.float32(1), steps)


MATRICES: Final[dict[str, Callable[[Rows], nn.Module]]] = {
    "float32": FloatMatrix,
    "dynamic_int8": DynamicInt8Matrix,
    "block_int8": BlockInt8Matrix,
}
"""How matrices can be stored and multiplied by, by name."""
