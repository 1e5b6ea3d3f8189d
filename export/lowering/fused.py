"""ONNX Runtime's fused operators: the fastest form on a CPU, and the one with the fewest nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from export.graphs.operators import SIGMOID_SLOPES
from export.lowering.emitter import CONTRIB, Emitter
from export.lowering.passes import Dialect


def _norm(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    x, residual, *affine = node.inputs
    assert x is not None
    kind = "Simplified" if len(affine) == 1 else ""
    epsilon = node.attributes.get_float("epsilon")
    if residual is None:
        normed = emit.one(f"{kind}LayerNormalization", x, *affine, axis=-1, epsilon=epsilon)
        return normed, x
    normed, _, _, total = emit.many(
        *(4, f"Skip{kind}LayerNormalization", x, residual, *affine),
        domain=CONTRIB,
        epsilon=epsilon,
    )
    return normed, total


def _activate(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    kind = node.attributes.get_string("kind")
    if kind == "gelu":
        return (emit.one("Gelu", node.inputs[0]),)
    slope = SIGMOID_SLOPES[kind or ""]
    return (emit.one("QuickGelu", node.inputs[0], alpha=slope, domain=CONTRIB),)


def _patch_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    q, k, v, cos, sin, *windows = node.inputs
    heads = node.attributes.get_int("heads")
    # Rows of cos and sin: the patch in each slot, or all patches in order from row 0.
    rows, mask = (windows[0], (None, windows[1])) if windows else (emit.longs(0), ())
    q, k = (
        emit.one("RotaryEmbedding", t, rows, cos, sin, num_heads=heads, domain=CONTRIB)
        for t in (q, k)
    )
    return (emit.one("MultiHeadAttention", q, k, v, *mask, num_heads=heads, domain=CONTRIB),)


def _cached_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    qkv, past_key, past_value, cos, sin, rows, last_slots, total_length = node.inputs
    return emit.many(
        *(3, "GroupQueryAttention", qkv, None, None, past_key, past_value),
        *(last_slots, total_length, cos, sin, rows),
        domain=CONTRIB,
        num_heads=node.attributes.get_int("heads"),
        kv_num_heads=node.attributes.get_int("kv_heads"),
        do_rotary=1,
    )


FUSED: Final = Dialect(
    rules={
        "Norm": _norm,
        "Activate": _activate,
        "PatchAttention": _patch_attention,
        "CachedAttention": _cached_attention,
    },
    opsets={"": 23, CONTRIB: 1},
    slots_only=False,
    last_only=False,
)
