"""Making the nodes that replace one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

CONTRIB: Final = "com.microsoft"


class Emitter:
    """Collects new nodes for a graph; constants are registered there once each."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}
        self.nodes: list[ir.Node] = []

    def one(
        self,
        kind: str,
        *inputs: ir.Value | None,
        domain: str = "",
        name: str | None = None,
        **attributes: Any,  # noqa: ANN401
    ) -> ir.Value:
        """Emit a node with one output and return that."""
        return self.many(1, kind, *inputs, domain=domain, name=name, **attributes)[0]

    def many(
        self,
        outputs: int,
        kind: str,
        *inputs: ir.Value | None,
        domain: str = "",
        name: str | None = None,
        **attributes: Any,  # noqa: ANN401
    ) -> Sequence[ir.Value]:
        """Emit a node and return its outputs."""
        node = ir.node(
            kind, inputs, attributes or None, domain=domain, num_outputs=outputs, name=name
        )
        self.nodes.append(node)
        return node.outputs

    def longs(self, *numbers: int) -> ir.Value:
        """Give an int64 constant of one axis."""
        return self.constant(np.array(numbers, np.int64))

    def constant(self, array: npt.NDArray[Any]) -> ir.Value:
        """Give a small constant; the same one for the same contents."""
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            tensor = ir.Tensor(array, name=f"lowered_{len(self._constants)}")
            self._constants[key] = self.weight(tensor, tensor.name or "")
        return self._constants[key]

    def weight(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """Register a tensor as an initializer of the graph."""
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(value)
        return value

    def to(self, x: ir.Value, kind: ir.DataType) -> ir.Value:
        """Cast."""
        return self.one("Cast", x, to=int(kind))
