"""The passes: rules applied to every one of our nodes, and what tidies up behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    NameFixPass,
    RemoveUnusedNodesPass,
)

from export.graphs.operators import DOMAIN
from export.lowering.emitter import Emitter

Rule = Callable[[Emitter, ir.Node, ir.DataType], Sequence[ir.Value]]
"""Emits what replaces a node, attention computed in the float type given; returns its outputs."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A target's own words: rules by operator, and the operator sets that they need.

    slots_only: attention finds its place by `last_slots` alone, and `total_length` falls away.
    last_only: logits are of the last token alone, and `logit_tokens` falls away.
    """

    rules: Mapping[str, Rule]
    opsets: Mapping[str, int]
    slots_only: bool
    last_only: bool


def lower(model: ir.Model, dialect: Dialect, linear: Rule, floats: ir.DataType) -> None:
    """Replace every node of our domain, in place.

    linear: the rule for matrices, made by a precision. floats: FLOAT or FLOAT16, what attention
    computes in and what the KV cache holds.
    """
    graph, rules = model.graph, {**dialect.rules, "Linear": linear}
    emitter = Emitter(graph)
    for node in list(graph):
        if node.domain != DOMAIN:
            continue
        values = rules[node.op_type](emitter, node, floats)
        for old, new in zip(node.outputs, values, strict=True):
            if old.is_graph_output():
                new.name, new.type, new.shape = old.name, old.type, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.insert_after(node, emitter.nodes)
        graph.remove(node, safe=True)
        emitter.nodes = []
    _retype_cache(graph, floats)
    if dialect.slots_only and (unused := _input(graph, "total_length")):
        graph.inputs.remove(unused)
    if dialect.last_only and (asked := _input(graph, "logit_tokens")):
        ir.convenience.replace_all_uses_with(asked, emitter.longs(-1))
        graph.inputs.remove(asked)
    drop_cast_pairs(graph)
    CommonSubexpressionEliminationPass()(model)
    graph.opset_imports.clear()
    graph.opset_imports.update(dialect.opsets)
    RemoveUnusedNodesPass()(model)
    NameFixPass()(model)


def drop_cast_pairs(graph: ir.Graph) -> None:
    """Let what casts to FP32 and back to FP16 read the FP16 value itself."""
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        widened = source.producer() if source is not None else None
        if widened is None or widened.op_type != "Cast":
            continue
        narrow = ir.DataType.FLOAT16
        original = widened.inputs[0]
        if (
            node.attributes.get_int("to") == narrow
            and widened.attributes.get_int("to") == ir.DataType.FLOAT
            and original is not None
            and original.dtype == narrow
        ):
            ir.convenience.replace_all_uses_with(node.outputs[0], original)


def _retype_cache(graph: ir.Graph, floats: ir.DataType) -> None:
    for value in (*graph.inputs, *graph.outputs):
        if value.name and value.name.startswith(("past_", "present_")):
            value.type = ir.TensorType(floats)


def _input(graph: ir.Graph, name: str) -> ir.Value | None:
    return next((value for value in graph.inputs if value.name == name), None)
