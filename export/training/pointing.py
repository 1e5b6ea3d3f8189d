"""Where coordinates are read: dense supervision of the language model's sense of place.

A box is four numbers, each the edge of something that lies in some cells. Numbers alone do not
teach a small model to look there: nano's boxes stayed a guess over hundreds of thousands of them,
whatever its tower saw. Two losses do, and are dropped afterwards. An early layer tells of every
cell where in the picture it lies, which text in front of the picture makes possible and nothing
else asks for; and in a later layer one head of every token that a coordinate follows attends to the
cells along that edge.
"""

from typing import Final

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn

from export.training.batched_language import Trace
from export.training.packing import Packed
from idetex_edge.vocabulary import BOX_SCALE

_TOLERANCE: Final = 0.1
"""A cell's place is right to within so much of half a picture: the loss is square below it."""

_SLACK: Final = 0.3
"""How far, in cells, an edge may reach into a cell that is not counted as inside."""

_HEAD: Final = 0
"""The head that points; the others of its layer are free."""

_UNSEEN: Final = -1e4


def place_head(width: int) -> nn.Module:
    """Reads the place of a cell, (x, y) in -1..1, from its hidden state [..., width]."""
    return nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 2))


def place_loss(places: Tensor, rows: int, columns: int) -> Tensor:
    """How far places [B, rows x columns, 2] are from where the cells' centres lie (Huber)."""
    y, x = ((torch.arange(count) + 0.5) / count * 2 - 1 for count in (rows, columns))
    truth = torch.cartesian_prod(y, x).flip(-1)
    return nn_f.smooth_l1_loss(places.float(), truth.expand_as(places), beta=_TOLERANCE)


def edge_cells(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Which cells lie inside along each edge: bool [K, 4, rows x columns] for boxes [K, 4].

    Boxes are (x1, y1, x2, y2) in 0..1000, none of them empty.
    """

    def span(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, ...]:
        first = (low * count / BOX_SCALE + _SLACK).floor()
        last = (high * count / BOX_SCALE - _SLACK).ceil() - 1
        middle = ((low + high) / 2 * count / BOX_SCALE).floor().clamp(0, count - 1)
        thin = last < first
        return tuple(torch.where(thin, middle, edge)[:, None, None] for edge in (first, last))

    x1, y1, x2, y2 = boxes.float().unbind(1)
    left, right = span(x1, x2, columns)
    top, bottom = span(y1, y2, rows)
    x, y = torch.arange(columns).view(1, 1, -1), torch.arange(rows).view(1, -1, 1)
    across, down = (x >= left) & (x <= right), (y >= top) & (y <= bottom)
    edges = ((x == left) & down, (y == top) & across, (x == right) & down, (y == bottom) & across)
    return torch.stack(edges, dim=1).flatten(2)


def pointing_loss(attended: Trace, packed: Packed) -> Tensor:
    """Minus the log of how much of its attention one head gives to the cells along an edge.

    Averaged over all coordinates of boxes that are not empty; 0 where there is none.
    """
    x1, y1, x2, y2 = packed.boxes.unbind(1)
    sound = (x2 > x1) & (y2 > y1)
    flat = packed.box_rows[sound].flatten()
    cells = edge_cells(packed.boxes[sound], *packed.grid).flatten(0, 1)
    missed: list[Tensor] = []
    start = 0
    for block, query, key in zip(packed.blocks, attended.queries, attended.keys, strict=True):
        count, length = block.ids.shape
        here = ((flat >= start) & (flat < start + count * length)).nonzero()[:, 0]
        row, at = (flat[here] - start) // length, (flat[here] - start) % length
        start += count * length
        if not len(here):
            continue
        past = key.shape[2] - length
        logits = (key[row, _HEAD] @ query[row, _HEAD, at][..., None])[..., 0].float()
        later = torch.arange(past + length) > (past + at)[:, None]
        logits = logits.masked_fill(later, _UNSEEN)
        along = logits[:, packed.image].masked_fill(~cells[here], _UNSEEN)
        missed.append(logits.logsumexp(-1) - along.logsumexp(-1))
    return torch.cat(missed).mean() if missed else torch.zeros(())
