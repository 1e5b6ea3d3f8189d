"""The Qwen2.5-VL vision tower over a batch of equally sized pictures, with its own weights.

Hugging Face's forward packs pictures into one sequence and attends window by window; here the
windows of all pictures are a batch dimension, several times faster on a CPU. Equal to it up to
rounding (tested).
"""

from typing import Any

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.training.pointwise import rms_norm, rotate, swiglu

_MERGE = 2


class Windows:
    """How the merged cells of a rows x columns grid fall into windows, edges being smaller.

    `order` [rows * columns] lists raster cells window by window; `groups` gives (windows,
    cells in each) for every window shape in that order.
    """

    def __init__(self, rows: int, columns: int, side: int) -> None:
        raster = torch.arange(rows * columns).view(rows, columns)
        parts: list[Tensor] = []
        self.groups: list[tuple[int, int]] = []
        for top, height in _spans(rows, side):
            for left, width in _spans(columns, side):
                block = raster[top : top + height, left : left + width]
                tall, wide = min(side, height), min(side, width)
                tiles = block.reshape(height // tall, tall, width // wide, wide).transpose(1, 2)
                cells = tiles.reshape(-1, tall * wide)
                self.groups.append((cells.shape[0], cells.shape[1]))
                parts.append(cells.flatten())
        self.order = torch.cat(parts)
        self.raster = torch.argsort(self.order)


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    whole = length // side * side
    return [span for span in ((0, whole), (whole, length - whole)) if span[1]]


def _rotary(rows: int, columns: int, head_dim: int, order: Tensor) -> tuple[Tensor, Tensor]:
    """Cos and sin [patches, head_dim / 2], patches in window order, four to a cell."""
    y, x = torch.meshgrid(
        torch.arange(rows * _MERGE), torch.arange(columns * _MERGE), indexing="ij"
    )

    def by_cell(grid: Tensor) -> Tensor:
        cells = grid.reshape(rows, _MERGE, columns, _MERGE).transpose(1, 2)
        return cells.reshape(rows * columns, -1)[order].flatten().float()

    quarter = head_dim // 4
    rates = 10000.0 ** -(torch.arange(quarter).float() / quarter)
    angles = torch.cat((by_cell(y)[:, None] * rates, by_cell(x)[:, None] * rates), dim=1)
    return angles.cos(), angles.sin()


def _attend(
    block: Any,
    hidden: Tensor,
    cos: Tensor,
    sin: Tensor,
    groups: list[tuple[int, int]],
) -> Tensor:
    batch, patches, width = hidden.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(hidden).view(batch, patches, 3, heads, width // heads)
    turning, value = qkv.split((2, 1), dim=2)
    cos, sin = cos.to(qkv.dtype)[:, None, None], sin.to(qkv.dtype)[:, None, None]
    query, key = rotate(turning, cos, sin).unbind(2)
    # Split, not sliced: a slice's gradient is a whole tensor of zeros for every group.
    sizes = [count * cells * _MERGE * _MERGE for count, cells in groups]
    parts = zip(
        groups, *(part.split(sizes, dim=1) for part in (query, key, value.squeeze(2))), strict=True
    )
    outputs: list[Tensor] = []
    for (count, cells), *window in parts:
        size = cells * _MERGE * _MERGE
        q, k, v = (part.reshape(batch * count, size, heads, -1).transpose(1, 2) for part in window)
        # Plain matrix products: their backward runs on the CPU's bf16 units, SDPA's does not.
        weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).softmax(-1)
        result = torch.matmul(weights, v)
        outputs.append(result.transpose(1, 2).reshape(batch, count * size, width))
    return block.attn.proj(torch.cat(outputs, dim=1))


def encode(tower: Any, pixels: Tensor) -> Tensor:
    """Image features [B, cells, out] in raster order of normalised pixels [B, 3, H, W].

    `tower` is a Qwen2_5_VisionTransformerPretrainedModel; H and W are multiples of 28.
    """
    batch, _, height, width = pixels.shape
    patch = tower.patch_size
    kernel = tower.patch_embed.proj.weight
    features = nn_f.conv2d(pixels, kernel.sum(2), stride=patch)
    depth = features.shape[1]
    rows, columns = height // patch // _MERGE, width // patch // _MERGE
    windows = Windows(rows, columns, tower.window_size // patch // _MERGE)
    cells = features.view(batch, depth, rows, _MERGE, columns, _MERGE).permute(0, 2, 4, 3, 5, 1)
    hidden = cells.reshape(batch, rows * columns, _MERGE * _MERGE * depth)[:, windows.order]
    hidden = hidden.view(batch, -1, depth)
    heads = tower.blocks[0].attn.num_heads
    cos, sin = _rotary(rows, columns, depth // heads, windows.order)
    whole = [(1, rows * columns)]
    for index, block in enumerate(tower.blocks):
        groups = whole if index in tower.fullatt_block_indexes else windows.groups
        hidden = hidden + _attend(block, rms_norm(block.norm1, hidden), cos, sin, groups)
        normed = rms_norm(block.norm2, hidden)
        mlp = block.mlp
        hidden = hidden + mlp.down_proj(swiglu(mlp.gate_proj(normed), mlp.up_proj(normed)))
    normed = rms_norm(tower.merger.ln_q, hidden).view(batch, rows * columns, -1)
    return tower.merger.mlp(normed)[:, windows.raster]
