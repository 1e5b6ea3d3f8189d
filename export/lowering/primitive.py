"""Nothing that TensorRT 10.3 (JetPack 6) lacks: attention, rotation, norm and cache spelled out.

No Attention, RotaryEmbedding, RMSNormalization, TensorScatter or Gelu node is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from export.lowering.emitter import Emitter
from export.lowering.heads import (
    Input,
    join_heads,
    mask_of_slots,
    mask_of_windows,
    new_slots,
    rows_of,
    split_heads,
    split_qkv,
    write_place,
)
from export.lowering.passes import Dialect
from export.lowering.standard import activate

_HIDDEN: Final = {ir.DataType.FLOAT: -1e30, ir.DataType.FLOAT16: -6e4}
"""The score of what a mask hides: finite, and below any that attention computes."""


def _norm(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    x, residual, *affine = node.inputs
    assert x is not None
    total = x if residual is None else emit.one("Add", x, residual)
    epsilon = node.attributes.get_float("epsilon") or 0.0
    if len(affine) == 2:
        return emit.one("LayerNormalization", total, *affine, axis=-1, epsilon=epsilon), total
    square = emit.one("ReduceMean", emit.one("Mul", total, total), emit.longs(-1))
    padded = emit.one("Add", square, emit.constant(np.array(epsilon, np.float32)))
    unit = emit.one("Div", total, emit.one("Sqrt", padded))
    return emit.one("Mul", unit, affine[0]), total


def _activate(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    if node.attributes.get_string("kind") != "gelu":
        return activate(emit, node, floats)
    (x,) = node.inputs
    half, one, root = (emit.constant(np.array(n, np.float32)) for n in (0.5, 1.0, math.sqrt(0.5)))
    above = emit.one("Add", emit.one("Erf", emit.one("Mul", x, root)), one)
    return (emit.one("Mul", emit.one("Mul", x, half), above),)


def _rotate(emit: Emitter, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    """Turn [B, N, n, D], first half against second, by angles [B, n, D/2]."""
    c, s = (emit.one("Unsqueeze", t, emit.longs(1)) for t in (cos, sin))
    first, second = emit.many(2, "Split", x, axis=-1, num_outputs=2)
    turned = (
        emit.one("Sub", emit.one("Mul", first, c), emit.one("Mul", second, s)),
        emit.one("Add", emit.one("Mul", second, c), emit.one("Mul", first, s)),
    )
    return emit.one("Concat", *turned, axis=-1)


def _attend(
    emit: Emitter, q: ir.Value, k: ir.Value, v: ir.Value, mask: Input, floats: ir.DataType
) -> ir.Value:
    """softmax(q k^T / sqrt(D)) v over the last two axes, where `mask` lets it see."""
    scores = emit.one("MatMul", q, k)
    if mask is not None:
        hidden = emit.constant(np.array(_HIDDEN[floats], floats.numpy()))
        scores = emit.one("Where", mask, scores, hidden)
    return emit.one("MatMul", emit.one("Softmax", scores, axis=-1), v)


def _scaled(emit: Emitter, q: ir.Value, size: int, floats: ir.DataType) -> ir.Value:
    # Before the product, whose FP16 sums would overflow.
    return emit.one("Mul", q, emit.constant(np.array(size**-0.5, floats.numpy())))


def _patch_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    q, k, v, cos, sin, *windows = node.inputs
    heads = node.attributes.get_int("heads") or 0
    size = node.attributes.get_int("head_dim") or 0
    slots, lengths = windows if windows else (None, None)
    q, k, v = (split_heads(emit, t, heads, floats) for t in (q, k, v))
    angles = [rows_of(emit, t, slots, floats) for t in (cos, sin)]
    q, k = (_rotate(emit, t, *angles) for t in (q, k))
    mask = None if slots is None else mask_of_windows(emit, slots, lengths)
    across = emit.one("Transpose", k, perm=[0, 1, 3, 2])
    mixed = _attend(emit, _scaled(emit, q, size, floats), across, v, mask, floats)
    return (join_heads(emit, mixed, floats),)


def _cached_attention(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    qkv, past_key, past_value, cos, sin, rows, last_slots, _ = node.inputs
    heads, kv_heads, size = (
        node.attributes.get_int(name) or 0 for name in ("heads", "kv_heads", "head_dim")
    )
    q, k, v = split_qkv(emit, qkv, node, floats)
    angles = [rows_of(emit, t, rows, floats) for t in (cos, sin)]
    q, k = (_rotate(emit, t, *angles) for t in (q, k))
    place = write_place(emit, last_slots, rows)
    slots = emit.one("Expand", new_slots(emit, place, rows), emit.one("Shape", k))
    key, value = (
        emit.one("ScatterElements", past, slots, new, axis=2)
        for past, new in ((past_key, k), (past_value, v))
    )
    # Query heads that share a key head stand on an axis of their own: keys are not repeated.
    groups = emit.longs(0, kv_heads, heads // kv_heads, -1, size)
    grouped = emit.one("Reshape", _scaled(emit, q, size, floats), groups)
    across = emit.one("Transpose", key, perm=[0, 1, 3, 2])
    two = emit.longs(2)
    mixed = _attend(
        emit,
        grouped,
        emit.one("Unsqueeze", across, two),
        emit.one("Unsqueeze", value, two),
        emit.one("Unsqueeze", mask_of_slots(emit, place, rows, past_key), two),
        floats,
    )
    flat = emit.one("Reshape", mixed, emit.longs(0, heads, -1, size))
    return join_heads(emit, flat, floats), key, value


PRIMITIVE: Final = Dialect(
    rules={
        "Norm": _norm,
        "Activate": _activate,
        "PatchAttention": _patch_attention,
        "CachedAttention": _cached_attention,
    },
    opsets={"": 21},
    slots_only=True,
    last_only=True,
)
