"""A larger preset that begins as a smaller trained one: wider and deeper, and saying the same.

Units are doubled (or more) and what reads them is shared among the copies, as in Chen et al.,
"Net2Net: Accelerating Learning via Knowledge Transfer", 2016; layers put in between add nothing
to the residual stream at first. Copies would stay copies, since they would get equal gradients: so
each reads its inputs with noise that cancels between the inputs' copies.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from export.student.architecture import Preset, sizes_of, trained_model
from idetex_edge.errors import ExportError

_NOISE: Final = 0.5
"""Of the noise that makes copies differ, in standard deviations of the matrix it is added to."""

_KEPT: Final = 0
_GROUPED: Final[Mapping[str, tuple[int, int]]] = {
    r"\.qkv\.weight": (3, 1),
    r"\.qkv\.bias": (3, 1),
    r"\.merger\.mlp\.0\.weight": (1, 4),
    r"(embed_tokens|lm_head)\.weight": (_KEPT, 1),
    r"\.patch_embed\.proj\.weight": (1, _KEPT),
}
"""Tensors of which an axis is kept, or holds several parts that grow each by itself: query, key and
value; the four patches that are merged."""

_WRITES: Final = re.compile(r"\.(attn\.proj|o_proj|down_proj)\.")
_LAYER: Final = re.compile(r"\.(blocks|layers)\.(\d+)\.")
_SUMMED_AGAIN: Final = "language_model.norm.weight"
_NOT_READING: Final = re.compile(r"(embed_tokens|lm_head)\.weight")


def _tiled(tensor: Tensor, axis: int, parts: int, times: int) -> Tensor:
    shape = tensor.shape
    split = tensor.unflatten(axis, (parts, shape[axis] // parts))
    repeats = [1] * split.ndim
    repeats[axis + 1] = times
    return split.repeat(repeats).flatten(axis, axis + 1)


def _shared(matrix: Tensor, parts: int, times: int, generator: torch.Generator) -> Tensor:
    """A matrix for inputs that come `times` times: it sums over the copies to what it was."""
    wide = _tiled(matrix, 1, parts, times) / times
    noise = torch.randn(wide.shape, generator=generator) * wide.std() * _NOISE
    grouped = noise.unflatten(1, (parts, times, -1))
    return wide + (grouped - grouped.mean(2, keepdim=True)).flatten(1)


def _grown(name: str, tensor: Tensor, times: int, generator: torch.Generator) -> Tensor:
    outer, inner = next((g for pattern, g in _GROUPED.items() if re.search(pattern, name)), (1, 1))
    if outer != _KEPT:
        tensor = _tiled(tensor, 0, outer, times)
    if tensor.ndim > 1 and inner != _KEPT:
        if _NOT_READING.search(name):
            tensor = _tiled(tensor, 1, inner, times)
        else:
            tensor = _shared(tensor, inner, times, generator)
    return tensor / times if name.endswith(_SUMMED_AGAIN) else tensor


def places_among(few: int, many: int) -> list[int]:
    """Where `few` layers go among `many`: the last of each stretch, as full attention is.

    Where they are not fewer, some share a place.
    """
    return [-(-(number + 1) * many // few) - 1 for number in range(few)]


def weights_for(folder: Path, preset: Preset) -> dict[str, Tensor]:
    """The weights of a checkpoint folder of ours by name, grown where it is smaller than a preset.

    Of layers that are put in between only what keeps them from adding anything is given; the rest
    starts as it is created. Raises ExportError where they cannot grow to that size.
    """
    model = trained_model(folder)
    return grown(model.state_dict(), sizes_of(model.config), preset)


@torch.no_grad()
def grown(weights: Mapping[str, Tensor], small: Preset, large: Preset) -> dict[str, Tensor]:
    """What `weights_for` gives, of the weights of a preset of ours."""
    if small == large:
        return dict(weights)
    times = _times(small, large)
    places = {
        "blocks": places_among(small.vision_depth, large.vision_depth),
        "layers": places_among(small.text_depth, large.text_depth),
    }
    moved = tuple(places["blocks"][block] for block in small.full_attention_blocks)
    if moved != large.full_attention_blocks:
        raise ExportError(f"{small} cannot grow to {large}: full attention would lie elsewhere")
    depths = {"blocks": large.vision_depth, "layers": large.text_depth}
    generator = torch.Generator().manual_seed(0)
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        wide = _grown(name, tensor, times, generator)
        layer = _LAYER.search(name)
        if layer is None:
            result[name] = wide
            continue
        kind, number = layer[1], int(layer[2])
        before, after = name[: layer.start()], name[layer.end() :]
        result[f"{before}.{kind}.{places[kind][number]}.{after}"] = wide
        if number == 0 and _WRITES.search(name):
            between = set(range(depths[kind])) - set(places[kind])
            for place in between:
                result[f"{before}.{kind}.{place}.{after}"] = torch.zeros_like(wide)
    return result


def _times(small: Preset, large: Preset) -> int:
    names = ("vision_width", "vision_mlp", "text_width", "text_mlp", "kv_heads")
    ratios = {getattr(large, name) / getattr(small, name) for name in names}
    ratio = min(ratios)
    if len(ratios) > 1 or ratio != int(ratio):
        raise ExportError(
            f"{small} cannot grow to {large}: all widths must be the same whole multiple"
        )
    return int(ratio)
