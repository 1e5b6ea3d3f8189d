"""The vision graph: patches of one picture to image features in the language model's space.

Inputs, for N patches in merge-unit order (the Hugging Face processor's), W windows of at most S
patches, and rotary frequencies F = head_dim / 2:

    patches         float32 [N, C*T*P*P]
    cos, sin        float32 [N, F]     rotary angles of each patch, row frequencies then columns
    window_slots    int64   [W, S]     patch in each slot of each window, any patch where empty
    window_lengths  int32   [W]        filled slots of each window; they come first
    patch_slots     int64   [N]        slot of each patch in the flattened windows

and one output, `features` float32 [N / merge^2, text hidden], in raster order. Windows are a batch
dimension: attention inside them costs N*S instead of N*N and needs no N*N mask. A model without
windows (Qwen2-VL) has only the first three inputs.

Architecture: Qwen2.5-VL (arXiv 2502.13923) and Qwen2-VL (arXiv 2409.12191); numerically equal to
`transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py` and its Qwen2-VL sibling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder, nn

from export.checkpoint import Checkpoint
from export.graphs.layers import IR_VERSION, GatedMlp, Linear, Norm, PlainMlp
from export.graphs.operators import DOMAIN, OPSETS
from export.graphs.rows import WeightSource

_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class _Angles:
    """Rotary inputs, a row for each patch."""

    cos: ir.Value
    sin: ir.Value


@dataclass(frozen=True, slots=True)
class _Windows:
    """Window inputs, and what is derived from them once for all blocks."""

    slots: ir.Value
    lengths: ir.Value
    patch_slots: ir.Value
    flat_slots: ir.Value
    shape: ir.Value


class _Attention(nn.Module):
    def __init__(self, weights: WeightSource, name: str, hidden: int, heads: int) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads
        self.q, self.k, self.v = (
            Linear(weights, [f"{name}.qkv"], hidden, hidden, bias=True, share=(i, 3))
            for i in range(3)
        )
        self.proj = Linear(weights, [f"{name}.proj"], hidden, hidden, bias=True)

    def forward(
        self, op: OpBuilder, x: ir.Value, angles: _Angles, windows: _Windows | None
    ) -> ir.Value:
        if windows is None:
            shape, places = [1, -1, self.hidden], ()
        else:
            shape, places = windows.shape, (windows.slots, windows.lengths)
            x = op.Gather(x, windows.flat_slots)
        q, k, v = (op.Reshape(layer(op, x), shape) for layer in (self.q, self.k, self.v))
        mixed = op.PatchAttention(
            *(q, k, v, angles.cos, angles.sin, *places),
            heads=self.heads,
            head_dim=self.hidden // self.heads,
            _domain=DOMAIN,
        )
        flat = op.Reshape(mixed, [-1, self.hidden])
        return self.proj(op, flat if windows is None else op.Gather(flat, windows.patch_slots))


class _Block(nn.Module):
    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        super().__init__()
        facts, weights = checkpoint.vision, checkpoint.weights
        name = f"visual.blocks.{index}"
        self.full = index in facts.full_blocks
        self.norm1 = Norm(weights, f"{name}.norm1", facts.hidden, _EPSILON)
        self.attention = _Attention(weights, f"{name}.attn", facts.hidden, facts.heads)
        self.norm2 = Norm(weights, f"{name}.norm2", facts.hidden, _EPSILON)
        self.mlp = _mlp(checkpoint, f"{name}.mlp")

    def forward(
        self,
        op: OpBuilder,
        x: ir.Value,
        residual: ir.Value | None,
        angles: _Angles,
        windows: _Windows | None,
    ) -> tuple[ir.Value, ir.Value]:
        """Return the block's last term and the residual stream that it belongs on."""
        normed, stream = self.norm1(op, x, residual)
        mixed = self.attention(op, normed, angles, None if self.full else windows)
        normed, stream = self.norm2(op, mixed, stream)
        return self.mlp(op, normed), stream


def _mlp(checkpoint: Checkpoint, name: str) -> nn.Module:
    weights, size = checkpoint.weights, checkpoint.vision.hidden
    if f"{name}.fc1.weight" in weights:
        inner = weights.shape(f"{name}.fc1.weight")[0]
        names = (f"{name}.fc1", f"{name}.fc2")
        return PlainMlp(weights, names, (size, inner, size), checkpoint.vision_activation)
    inner = weights.shape(f"{name}.gate_proj.weight")[0]
    return GatedMlp(weights, name, size, inner, checkpoint.vision_activation, bias=True)


class _Encoder(nn.Module):
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        facts, weights = checkpoint.vision, checkpoint.weights
        pixels = facts.channels * facts.temporal * facts.patch**2
        self.unit = facts.hidden * facts.merge**2
        self.patch_embed = Linear(
            weights, ["visual.patch_embed.proj"], pixels, facts.hidden, bias=False
        )
        self.blocks = nn.ModuleList([_Block(checkpoint, i) for i in range(facts.layers)])
        self.norm = Norm(weights, "visual.merger.ln_q", facts.hidden, _EPSILON)
        self.merger = PlainMlp(
            weights,
            ("visual.merger.mlp.0", "visual.merger.mlp.2"),
            (self.unit, self.unit, checkpoint.text.hidden),
            "gelu",
        )

    def forward(
        self, op: OpBuilder, patches: ir.Value, angles: _Angles, windows: _Windows | None
    ) -> ir.Value:
        x, residual = self.patch_embed(op, patches), None
        for block in self.blocks:
            x, residual = block(op, x, residual, angles, windows)
        normed, _ = self.norm(op, x, residual)
        return self.merger(op, op.Reshape(normed, [-1, self.unit]))


def vision_graph(checkpoint: Checkpoint) -> ir.Model:
    """Build the vision graph of a checkpoint, to be lowered (see `export.lowering`).

    Raises ExportError when the checkpoint's tensors do not fit its config.json.
    """
    facts = checkpoint.vision
    graph = ir.Graph([], [], nodes=[], name="vision", opset_imports=OPSETS)
    builder = GraphBuilder(graph)
    floats = ir.DataType.FLOAT
    pixels = facts.channels * facts.temporal * facts.patch**2
    patches = builder.input("patches", floats, ["patches", pixels])
    per_patch = ["patches", facts.head_dim // 2]
    angles = _Angles(*(builder.input(name, floats, per_patch) for name in ("cos", "sin")))
    windows = None if len(facts.full_blocks) == facts.layers else _windows(builder, facts.hidden)
    features = _Encoder(checkpoint)(builder.op, patches, angles, windows)
    builder.add_output(features, "features")
    features.type = ir.TensorType(floats)
    features.shape = ir.Shape(["tokens", checkpoint.text.hidden])
    return ir.Model(graph, ir_version=IR_VERSION)


def _windows(builder: GraphBuilder, hidden: int) -> _Windows:
    op, longs = builder.op, ir.DataType.INT64
    slots = builder.input("window_slots", longs, ["windows", "slots"])
    return _Windows(
        slots=slots,
        lengths=builder.input("window_lengths", ir.DataType.INT32, ["windows"]),
        patch_slots=builder.input("patch_slots", longs, ["patches"]),
        flat_slots=op.Reshape(slots, [-1]),
        shape=op.Concat(op.Shape(slots), [hidden], axis=0),
    )
