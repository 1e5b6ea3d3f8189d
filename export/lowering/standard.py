"""Operators of ONNX 24 alone: TensorScatter, Attention, RotaryEmbedding, RMSNormalization.

TensorRT 10.16, 11 and RTX take them as native KV-cache-update, attention and norm layers, provided
that Attention has one output and computes in FP16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from export.graphs.operators import SIGMOID_SLOPES
from export.lowering.emitter import Emitter
from export.lowering.heads import (
    join_heads,
    mask_of_slots,
    mask_of_windows,
    rows_of,
    split_heads,
    split_qkv,
    write_place,
)
from export.lowering.passes import Dialect


def _norm(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    x, residual, *affine = node.inputs
    assert x is not None
    total = x if residual is None else emit.one("Add", x, residual)
    kind = "RMSNormalization" if len(affine) == 1 else "LayerNormalization"
    epsilon = node.attributes.get_float("epsilon")
    return emit.one(kind, total, *affine, axis=-1, epsilon=epsilon), total


def activate(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    """Spell out silu and quick_gelu as x * sigmoid(slope * x); gelu is an operator."""
    (x,) = node.inputs
    kind = node.attributes.get_string("kind")
    if kind == "gelu":
        return (emit.one("Gelu", x),)
    slope = SIGMOID_SLOPES[kind or ""]
    scaled = x if slope == 1 else emit.one("Mul", x, emit.constant(np.array(slope, np.float32)))
    return (emit.one("Mul", x, emit.one("Sigmoid", scaled)),)


def _patch_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    q, k, v, cos, sin, *windows = node.inputs
    heads = node.attributes.get_int("heads") or 0
    slots, lengths = windows if windows else (None, None)
    q, k, v = (split_heads(emit, t, heads, floats) for t in (q, k, v))
    angles = [rows_of(emit, t, slots, floats) for t in (cos, sin)]
    q, k = (emit.one("RotaryEmbedding", t, *angles) for t in (q, k))
    mask = None if slots is None else mask_of_windows(emit, slots, lengths)
    mixed = emit.one("Attention", q, k, v, mask)
    return (join_heads(emit, mixed, floats),)


def _cached_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    qkv, past_key, past_value, cos, sin, rows, last_slots, _ = node.inputs
    q, k, v = split_qkv(emit, qkv, node, floats)
    angles = [rows_of(emit, t, rows, floats) for t in (cos, sin)]
    q, k = (emit.one("RotaryEmbedding", t, *angles) for t in (q, k))
    place = write_place(emit, last_slots, rows)
    key, value = (
        emit.one("TensorScatter", past, new, place, axis=-2)
        for past, new in ((past_key, k), (past_value, v))
    )
    mask = mask_of_slots(emit, place, rows, past_key)
    mixed = emit.one("Attention", q, key, value, mask)
    return join_heads(emit, mixed, floats), key, value


STANDARD: Final = Dialect(
    rules={
        "Norm": _norm,
        "Activate": activate,
        "PatchAttention": _patch_attention,
        "CachedAttention": _cached_attention,
    },
    opsets={"": 24},
    slots_only=True,
    last_only=True,
)
