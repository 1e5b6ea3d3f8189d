"""A checkpoint's graphs as they are built, before lowering, and the matrices in them."""

from __future__ import annotations

import onnx_ir as ir

from export.checkpoint import Checkpoint
from export.graphs.decoder import decoder_graph, embedding_table
from export.graphs.operators import DOMAIN
from export.graphs.vision import vision_graph


def plain_graphs(checkpoint: Checkpoint) -> tuple[ir.Model, ir.Model]:
    """Build the vision encoder's graph and the decoder's; no weight is read."""
    table = embedding_table(checkpoint, "float16")
    return vision_graph(checkpoint), decoder_graph(checkpoint, table)


def matrices(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Find the weight [outputs, inputs] of every Linear of a graph, by its name."""
    found: dict[str, ir.TensorProtocol] = {}
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == "Linear":
            weight = node.inputs[1]
            assert weight is not None
            assert weight.const_value is not None
            found[node.name or ""] = weight.const_value
    return found
