"""The decoder graph: embeddings of new tokens, over a KV cache, to logits of the last ones.

Inputs, for B sequences, n new tokens each, a cache of S slots, K key-value heads of size D:

    embeddings       float32 [B, n, hidden]
    cos, sin         float32 [R, D/2]      row i: M-RoPE angles of a new token; R >= total_length
    rotary_rows      int64   [B, n]        which row of cos and sin each new token takes
    last_slots       int32   [B]           cache slot of each sequence's last new token
    logit_tokens     int64   [m]           which of the n to give logits of; only where the target
                                           can, elsewhere the last
    total_length     int32   []            largest last slot + 1; only where attention is fused
    past_key_i, past_value_i  [B, K, S, D] one pair for each layer; float32, or float16 where the
                                           target's attention is

Outputs: `logits` float32 [B * m, vocab], a sequence's tokens in a row, and `present_key_i`,
`present_value_i`, to be bound to the very buffers of the past: only the new slots are written.
Slots behind a sequence's end must hold finite numbers. Sequences may differ in length; n > 1 over a
past needs B = 1 (a limit of GroupQueryAttention). When the cache is empty, rows are taken in order
from the first.

There is no embedding graph: the host looks tokens up in the bundle's embedding file, which holds
the same bytes as the output matrix where the two are tied.

Architecture: Qwen2 with M-RoPE (arXiv 2409.12191); numerically equal to
`transformers/models/qwen2_vl/modeling_qwen2_vl.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder, nn

from export.checkpoint import Checkpoint
from export.graphs.layers import IR_VERSION, GatedMlp, Linear, Norm, parameter
from export.graphs.operators import DOMAIN, OPSETS
from export.graphs.rows import Rows


@dataclass(frozen=True, slots=True)
class _Step:
    """The inputs that say where the new tokens lie, and which of them are asked about."""

    cos: ir.Value
    sin: ir.Value
    rotary_rows: ir.Value
    last_slots: ir.Value
    total_length: ir.Value
    logit_tokens: ir.Value


_Cache = tuple[ir.Value, ir.Value]


class _Attention(nn.Module):
    """Packed projection and attention over the cache; the output projection is the layer's."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        super().__init__()
        facts = checkpoint.text
        self.heads, self.kv_heads, self.head_dim = facts.heads, facts.kv_heads, facts.head_dim
        outputs = (facts.heads + 2 * facts.kv_heads) * facts.head_dim
        names = [f"{name}.{part}_proj" for part in "qkv"]
        self.qkv = Linear(checkpoint.weights, names, facts.hidden, outputs, bias=True)

    def forward(
        self, op: OpBuilder, x: ir.Value, past: _Cache, step: _Step
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        return op.CachedAttention(
            self.qkv(op, x),
            *past,
            *(step.cos, step.sin, step.rotary_rows, step.last_slots, step.total_length),
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            _domain=DOMAIN,
            _outputs=3,
        )


class _Layer(nn.Module):
    def __init__(self, checkpoint: Checkpoint, index: int) -> None:
        super().__init__()
        facts, name = checkpoint.text, f"text.layers.{index}"
        size, epsilon = facts.hidden, checkpoint.norm_epsilon
        self.last = index == facts.layers - 1
        self.norm = Norm(checkpoint.weights, f"{name}.input_layernorm", size, epsilon)
        self.attention = _Attention(checkpoint, f"{name}.self_attn")
        self.out = Linear(checkpoint.weights, [f"{name}.self_attn.o_proj"], size, size, bias=False)
        self.mlp_norm = Norm(checkpoint.weights, f"{name}.post_attention_layernorm", size, epsilon)
        self.mlp = GatedMlp(
            checkpoint.weights,
            f"{name}.mlp",
            size,
            facts.intermediate,
            checkpoint.text_activation,
            bias=False,
        )

    def forward(
        self, op: OpBuilder, x: ir.Value, residual: ir.Value | None, past: _Cache, step: _Step
    ) -> tuple[ir.Value, ir.Value, _Cache]:
        """Return the layer's last term, the residual stream that it belongs on, present cache."""
        normed, stream = self.norm(op, x, residual)
        mixed, key, value = self.attention(op, normed, past, step)
        if self.last:
            mixed, stream = (op.Gather(t, step.logit_tokens, axis=1) for t in (mixed, stream))
        normed, stream = self.mlp_norm(op, self.out(op, mixed), stream)
        return self.mlp(op, normed), stream, (key, value)


class _Decoder(nn.Module):
    def __init__(
        self, checkpoint: Checkpoint, head: ir.TensorProtocol, floats: ir.DataType
    ) -> None:
        super().__init__()
        facts, self.floats = checkpoint.text, floats
        self.layers = nn.ModuleList([_Layer(checkpoint, i) for i in range(facts.layers)])
        self.norm = Norm(checkpoint.weights, "text.norm", facts.hidden, checkpoint.norm_epsilon)
        self.head, self.width = parameter(head), facts.hidden

    def forward(
        self, op: OpBuilder, embeddings: ir.Value, past: list[_Cache], step: _Step
    ) -> tuple[ir.Value, list[_Cache]]:
        x, residual, present = embeddings, None, []
        for layer, cache in zip(self.layers, past, strict=True):
            x, residual, cache = layer(op, x, residual, cache, step)
            present.append(cache)
        normed, _ = self.norm(op, x, residual)
        last = op.Reshape(normed, [-1, self.width])
        head = self.head if self.head.dtype == self.floats else op.Cast(self.head, to=self.floats)
        if self.floats == ir.DataType.FLOAT:
            return op.Gemm(last, head, transB=1), present
        logits = op.Gemm(op.Cast(last, to=self.floats), head, transB=1)
        return op.Cast(logits, to=ir.DataType.FLOAT), present


def embedding_table(checkpoint: Checkpoint, dtype: str) -> ir.LazyTensor:
    """Describe the token embeddings, [vocab, hidden] of a numpy float type."""
    return _vocabulary_rows(checkpoint, "text.embed_tokens.weight", dtype)


def decoder_graph(
    checkpoint: Checkpoint,
    embedding: ir.TensorProtocol,
    floats: ir.DataType = ir.DataType.FLOAT,
) -> ir.Model:
    """Build the decoder graph of a checkpoint, to be lowered (see `export.lowering`).

    `embedding` is the embedding table as it was written. The output matrix has its type, and where
    the two are tied refers to it instead of being stored again. `floats`: what it is multiplied in;
    TensorRT would keep a matrix that is widened in the graph once more for each profile, at twice
    its size. Raises ExportError when the checkpoint's tensors do not fit its config.json.
    """
    dtype = embedding.dtype.numpy().name
    head = embedding if checkpoint.tied else _vocabulary_rows(checkpoint, "head.weight", dtype)
    facts = checkpoint.text
    graph = ir.Graph([], [], nodes=[], name="decoder", opset_imports=OPSETS)
    builder = GraphBuilder(graph)
    single, longs, ints = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32
    embeddings = builder.input("embeddings", single, ["batch", "tokens", facts.hidden])
    angles = ["rows", facts.head_dim // 2]
    cos, sin = (builder.input(name, single, angles) for name in ("cos", "sin"))
    step = _Step(
        cos=cos,
        sin=sin,
        rotary_rows=builder.input("rotary_rows", longs, ["batch", "tokens"]),
        last_slots=builder.input("last_slots", ints, ["batch"]),
        total_length=builder.input("total_length", ints, []),
        logit_tokens=builder.input("logit_tokens", longs, ["asked"]),
    )
    shape = ["batch", facts.kv_heads, "slots", facts.head_dim]
    past = [
        (
            builder.input(f"past_key_{i}", single, shape),
            builder.input(f"past_value_{i}", single, shape),
        )
        for i in range(facts.layers)
    ]
    decoder = _Decoder(checkpoint, head, floats)
    logits, present = decoder(builder.op, embeddings, past, step)
    _output(builder, logits, "logits", ["rows_asked", facts.vocab])
    for i, (key, value) in enumerate(present):
        _output(builder, key, f"present_key_{i}", shape)
        _output(builder, value, f"present_value_{i}", shape)
    return ir.Model(graph, ir_version=IR_VERSION)


def _vocabulary_rows(checkpoint: Checkpoint, name: str, dtype: str) -> ir.LazyTensor:
    facts = checkpoint.text
    return Rows(checkpoint.weights, [name], (facts.vocab, facts.hidden)).lazy(dtype)


def _output(builder: GraphBuilder, value: ir.Value, name: str, shape: list[int | str]) -> None:
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(shape)
    builder.add_output(value, name)
