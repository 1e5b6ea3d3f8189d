"""Makes the graphs by which `idetex_edge.measuring.rates` tells how fast a machine multiplies.

    python benchmarks/rate_graphs.py

Each multiplies rows by a square matrix that ONNX Runtime packs when it loads: 8-bit whole numbers
into 32 bits, or float32. The matrix is filled by the graph, so the files hold no numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from idetex_edge.measuring.rates import GRAPHS, SIDE

_TYPES: Final = {
    "int8": ("MatMulInteger", np.int8, TensorProto.UINT8, TensorProto.INT32),
    "float32": ("MatMul", np.float32, TensorProto.FLOAT, TensorProto.FLOAT),
}


def rate_graph(name: str) -> bytes:
    """The serialised graph `name` of `GRAPHS`: x [rows, SIDE] to x times a constant matrix."""
    operator, weight, taken, given = _TYPES[name]
    shape = numpy_helper.from_array(np.array([SIDE, SIDE]), "shape")
    value = numpy_helper.from_array(np.ones(1, weight), "value")
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["matrix"], value=value),
            helper.make_node(operator, ["x", "matrix"], ["y"]),
        ],
        name,
        [helper.make_tensor_value_info("x", taken, ["rows", SIDE])],
        [helper.make_tensor_value_info("y", given, ["rows", SIDE])],
        [shape],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def main() -> None:
    """Write both graphs into the package."""
    for name, path in GRAPHS.items():
        Path(path).write_bytes(rate_graph(name))


if __name__ == "__main__":
    main()
