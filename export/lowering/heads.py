"""What the standard and the primitive dialect's attention have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from export.lowering.emitter import Emitter

Input = ir.Value | None


def split_heads(emit: Emitter, x: Input, heads: int, floats: ir.DataType) -> ir.Value:
    """Lay [B, n, heads * D] float32 out as [B, heads, n, D] of the attention's float type."""
    parts = emit.one("Reshape", narrow(emit, x, floats), emit.longs(0, 0, heads, -1))
    return emit.one("Transpose", parts, perm=[0, 2, 1, 3])


def join_heads(emit: Emitter, x: ir.Value, floats: ir.DataType) -> ir.Value:
    """Lay [B, heads, n, D] of the attention's float type out as float32 [B, n, heads * D]."""
    rows = emit.one("Transpose", x, perm=[0, 2, 1, 3])
    return widen(emit, emit.one("Reshape", rows, emit.longs(0, 0, -1)), floats)


def split_qkv(emit: Emitter, qkv: Input, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
    """Cut a packed projection [B, n, (heads + 2 kv_heads) * D] into three of [B, .., n, D]."""
    heads, kv_heads, size = (
        node.attributes.get_int(name) or 0 for name in ("heads", "kv_heads", "head_dim")
    )
    sizes = emit.longs(heads * size, kv_heads * size, kv_heads * size)
    parts = emit.many(3, "Split", qkv, sizes, axis=-1)
    counts = (heads, kv_heads, kv_heads)
    return [split_heads(emit, *pair, floats) for pair in zip(parts, counts, strict=True)]


def rows_of(emit: Emitter, table: Input, rows: Input, floats: ir.DataType) -> ir.Value:
    """Take the rows of a rotary table that tokens turn with: [B, n, D/2]; all, where None."""
    narrowed = narrow(emit, table, floats)
    if rows is None:
        return emit.one("Unsqueeze", narrowed, emit.longs(0))
    return emit.one("Gather", narrowed, rows)


def mask_of_windows(emit: Emitter, slots: Input, lengths: Input) -> ir.Value:
    """Let patches see the filled slots of their window: bool [W, 1, S, S]."""
    shape = emit.one("Shape", slots)
    size = emit.one("Gather", shape, emit.longs(1))
    keys = emit.one("Reshape", _range(emit, size), emit.longs(1, 1, 1, -1))
    filled = emit.one(
        "Reshape", emit.to(_some(lengths), ir.DataType.INT64), emit.longs(-1, 1, 1, 1)
    )
    seen = emit.one("Less", keys, filled)
    one = emit.longs(1)
    whole = emit.one("Concat", emit.one("Gather", shape, emit.longs(0)), one, size, size, axis=0)
    return emit.one("Expand", seen, whole)


def write_place(emit: Emitter, last_slots: Input, rows: Input) -> ir.Value:
    """Find the first slot that each sequence writes: int64 [B], last slot + 1 - new tokens."""
    count = emit.one("Gather", emit.one("Shape", rows), emit.longs(1))
    after = emit.one("Add", emit.to(_some(last_slots), ir.DataType.INT64), emit.longs(1))
    return emit.one("Sub", after, count)


def new_slots(emit: Emitter, place: ir.Value, rows: Input) -> ir.Value:
    """Name the slots that the new tokens take: int64 [B, 1, n, 1]."""
    count = emit.one("Gather", emit.one("Shape", rows), emit.longs(1))
    steps = emit.one("Reshape", _range(emit, count), emit.longs(1, 1, -1, 1))
    return emit.one("Add", emit.one("Reshape", place, emit.longs(-1, 1, 1, 1)), steps)


def mask_of_slots(emit: Emitter, place: ir.Value, rows: Input, past: Input) -> ir.Value:
    """Let each new token see the slots up to its own: bool [B, 1, n, S]."""
    total = emit.one("Gather", emit.one("Shape", past), emit.longs(2))
    keys = emit.one("Reshape", _range(emit, total), emit.longs(1, 1, 1, -1))
    return emit.one("LessOrEqual", keys, new_slots(emit, place, rows))


def narrow(emit: Emitter, x: Input, floats: ir.DataType) -> ir.Value:
    """Bring a float32 value to the attention's float type."""
    value = _some(x)
    if floats == ir.DataType.FLOAT:
        return value
    cast = emit.to(value, floats)
    cast.type = ir.TensorType(floats)
    return cast


def widen(emit: Emitter, x: ir.Value, floats: ir.DataType) -> ir.Value:
    """Bring a value of a float type back to float32."""
    if floats == ir.DataType.FLOAT:
        return x
    x.type = ir.TensorType(floats)
    return emit.to(x, ir.DataType.FLOAT)


def _range(emit: Emitter, size: ir.Value) -> ir.Value:
    scalar = emit.one("Squeeze", size, emit.longs(0))
    zero, one = (emit.constant(np.array(n, np.int64)) for n in (0, 1))
    return emit.one("Range", zero, scalar, one)


def _some(value: Input) -> ir.Value:
    assert value is not None
    return value
