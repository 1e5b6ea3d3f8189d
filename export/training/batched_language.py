"""The Qwen2.5-VL text model over packed blocks (`packing.py`), with its own weights.

Linear layers run over all tokens at once; attention runs block by block, each question over its
picture's prefix and itself. Equal to Hugging Face's forward up to rounding (tested).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from export.student.architecture import HEAD_DIM
from export.training.packing import Block
from export.training.pointwise import rms_norm, rotate, swiglu

_EARLY: Final = 1 / 3
"""How deep the layer is that knows where in the picture it is: what looks there comes after it."""

_POINTING: Final = 1 / 2
"""How much of the depth lies before the layer of which attention is traced."""

_MIDDLE: Final = 2 / 3
"""How deep the middle layer is: deep enough to see, with layers left to act on what is seen."""


Attention = tuple[tuple[Tensor, ...], ...]
"""Of every layer and block, where its tokens look."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a pass over packed blocks leaves behind.

    Hidden states [T, width] of all blocks' tokens, flattened and joined: the last, normalised, and
    those behind a middle and an early layer. Of one layer behind the early one, each block's scaled
    and rotated queries [N, heads, L, D] and its keys [N, KV heads, P + L, D], the prefix's first.
    `attention`, where it was asked for, has for every layer and block the mean of its heads'
    [N, L, P + L].
    """

    last: Tensor
    middle: Tensor
    early: Tensor
    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]
    attention: Attention = ()


@dataclass(frozen=True, slots=True)
class _Attended:
    """One block in one layer: its queries, its keys, and its heads' mean attention if asked for."""

    query: Tensor
    key: Tensor
    attention: Tensor | None


def _causal(length: int, past: int, like: Tensor) -> Tensor:
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    own = torch.zeros(length, length).masked_fill(future, -1e4)
    return torch.cat((torch.zeros(length, past), own), dim=1).to(like.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, told: bool) -> tuple[Tensor, Tensor | None]:
    """Causal attention at the end of a past: query [N, H, L, D] over key, value [N, G, P + L, D].

    Query heads of a group are folded into its length, so that keys are read once. With `told`, the
    heads' mean [N, L, P + L] is given too.
    """
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    folded = query.reshape(rows, groups, heads // groups, length, size).flatten(2, 3)
    mask = _causal(length, key.shape[2] - length, query).repeat(heads // groups, 1)
    weights = (torch.matmul(folded, key.transpose(-1, -2)) + mask).softmax(-1).to(value.dtype)
    mixed = torch.matmul(weights, value).view(rows, heads, length, size)
    mean = weights.view(rows, heads, length, -1).float().mean(1) if told else None
    return mixed.transpose(1, 2).reshape(rows * length, heads * size), mean


def _layer(
    layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor, blocks: Sequence[Block], told: bool
) -> tuple[Tensor, list[_Attended]]:
    attention = layer.self_attn
    normed = rms_norm(layer.input_layernorm, hidden)
    query, key, value = (
        projection(normed).unflatten(-1, (-1, HEAD_DIM))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    query = rotate(query * HEAD_DIM**-0.5, cos, sin)
    key = rotate(key, cos, sin)
    # Split, not sliced: a slice's gradient is a whole tensor of zeros for every block.
    sizes = [block.ids.numel() for block in blocks]
    parts = zip(blocks, query.split(sizes), key.split(sizes), value.split(sizes), strict=True)
    outputs: list[Tensor] = []
    attended: list[_Attended] = []
    prefix_key = prefix_value = None
    for block, *qkv in parts:
        q, k, v = (part.unflatten(0, tuple(block.ids.shape)).transpose(1, 2) for part in qkv)
        if block.picture is None:
            prefix_key, prefix_value = k, v
        else:
            assert prefix_key is not None
            assert prefix_value is not None
            k = torch.cat((prefix_key[block.picture], k), dim=2)
            v = torch.cat((prefix_value[block.picture], v), dim=2)
        output, mean = _attend(q, k, v, told)
        attended.append(_Attended(q, k, mean))
        outputs.append(output)
    hidden = hidden + attention.o_proj(torch.cat(outputs))
    normed = rms_norm(layer.post_attention_layernorm, hidden)
    mlp = layer.mlp
    hidden = hidden + mlp.down_proj(swiglu(mlp.gate_proj(normed), mlp.up_proj(normed)))
    return hidden, attended


def trace(text: Any, embeddings: Tensor, blocks: Sequence[Block], told: bool = False) -> Trace:
    """Pass over the tokens of all blocks.

    `text` is a Qwen2_5_VLTextModel; `embeddings` [T, width] are the blocks' tokens, flattened and
    joined. The first block must be the prefixes. `told`: whether every layer's attention is wanted.
    """
    cos = torch.cat([block.cos.repeat(len(block.ids), 1) for block in blocks])[:, None]
    sin = torch.cat([block.sin.repeat(len(block.ids), 1) for block in blocks])[:, None]
    depth = len(text.layers)
    hidden = middle = early = embeddings
    pointing: list[_Attended] = []
    attention: list[tuple[Tensor, ...]] = []
    for index, layer in enumerate(text.layers):
        hidden, attended = _layer(layer, hidden, cos, sin, blocks, told)
        if told:
            attention.append(tuple(a.attention for a in attended if a.attention is not None))
        if index + 1 == round(depth * _EARLY):
            early = hidden
        if index == round(depth * _POINTING):
            pointing = attended
        if index + 1 == round(depth * _MIDDLE):
            middle = hidden
    return Trace(
        rms_norm(text.norm, hidden),
        middle,
        early,
        tuple(a.query for a in pointing),
        tuple(a.key for a in pointing),
        tuple(attention),
    )
