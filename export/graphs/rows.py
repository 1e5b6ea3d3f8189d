"""Rows of a checkpoint's tensors, described now and read when a graph is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from idetex_edge.errors import ExportError

Array = npt.NDArray[np.float32]


class WeightSource(Protocol):
    """Where tensors come from (see `export.checkpoint.Weights`)."""

    @property
    def identity(self) -> object:
        """What the tensors are read from; changes when the files do."""
        ...

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
        return lazy_tensor(
            lambda: self.read().astype(dtype, copy=False), dtype, self.shape, self.names[0]
        )


def lazy_tensor(
    read: Callable[[], npt.NDArray[Any]],
    dtype: npt.DTypeLike | ir.DataType,
    shape: Sequence[int],
    name: str,
) -> ir.LazyTensor:
    """Describe an array that is computed anew each time it is needed, and never kept."""
    kind = dtype if isinstance(dtype, ir.DataType) else ir.DataType.from_numpy(np.dtype(dtype))

    def tensor() -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(read()), dtype=kind)

    return ir.LazyTensor(
        tensor,
        dtype=kind,
        shape=ir.Shape(shape),
        name=name,
    )
