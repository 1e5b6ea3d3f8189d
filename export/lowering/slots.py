"""Giving the KV cache one length, which TensorRT's cache updates want known when they are built."""

from __future__ import annotations

import onnx_ir as ir


def fix_slots(model: ir.Model, slots: int) -> None:
    """Put `slots` in place of the caches' free length, in inputs and outputs."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name and value.name.startswith(("past_", "present_")):
            assert value.shape is not None
            batch, heads, _, size = value.shape
            value.shape = ir.Shape([batch, heads, slots, size])
