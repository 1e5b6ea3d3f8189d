"""The shapes that engines are built for: several sizes of picture, prefill and decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from export.bundling.graphs import Recipe
from idetex_edge.preprocess import Preprocessor
from idetex_edge.tensorrt.recipe import Profile

BATCH: Final = 8
"""The most sequences that decode together."""

_SIDES: Final = (224, 448)
"""Pictures of these sides, pixels, and the largest that the preprocessor makes, end the profiles of
the vision engine: kernels are chosen for each."""

_PROMPT: Final = 256
"""Tokens of a usual prompt behind the picture."""

Shape = tuple[int, ...]


def vision_profiles(recipe: Recipe, preprocessor: Preprocessor) -> tuple[Profile, ...]:
    """One profile for each size of picture: up to 224 and 448 pixels square, up to the largest."""
    patch = preprocessor.patch_size
    unit = preprocessor.merge_size**2
    least = max(unit, preprocessor.min_pixels // patch**2 // 2)
    # A grid's sides are rounded up to whole tokens: a narrow picture may have a few more patches.
    largest = preprocessor.max_pixels // patch**2
    ends = [(side // patch) ** 2 for side in _SIDES if (side // patch) ** 2 < largest]
    found: list[Profile] = []
    for end in (*ends, largest):
        found.append(_vision(recipe, least, max(least, end // 2), max(least, end)))
        least = max(least, end)
    return tuple(found)


def decoder_profiles(recipe: Recipe) -> tuple[Profile, Profile]:
    """Prefill of one sequence, any number of tokens; then one token each of up to `BATCH`."""
    usual = min(_PROMPT, recipe.slots)
    prefill = _decoder(recipe, (1, 1, 1), (1, usual, recipe.slots))
    return prefill, _decoder(recipe, (1, BATCH // 2, BATCH), (1, 1, 1))


def _vision(recipe: Recipe, *patches: int) -> Profile:
    facts = recipe.checkpoint.vision
    pixels = facts.channels * facts.temporal * facts.patch**2
    half = facts.head_dim // 2
    profile: dict[str, tuple[Shape, ...]] = {
        "patches": tuple((n, pixels) for n in patches),
        "cos": tuple((n, half) for n in patches),
        "sin": tuple((n, half) for n in patches),
    }
    if facts.window:
        side = facts.window // facts.patch
        slots = side * side
        # Windows at the edges are not full: a strip one token wide has a window for every `side`.
        windows = [-(-n // slots) for n in patches]
        windows[0], windows[2] = 1, -(-patches[2] // (side * facts.merge)) + 1
        windows[1] = max(windows[0], min(windows[1], windows[2]))
        sizes = (facts.merge**2, slots, slots)
        profile |= {
            "window_slots": tuple(zip(windows, sizes, strict=True)),
            "window_lengths": tuple((count,) for count in windows),
            "patch_slots": tuple((n,) for n in patches),
        }
    return profile


def _decoder(recipe: Recipe, batches: Shape, counts: Shape) -> Profile:
    facts, slots = recipe.checkpoint.text, recipe.slots
    pairs = list(zip(batches, counts, strict=True))
    angles = ((slots, facts.head_dim // 2),) * 3
    profile: dict[str, tuple[Shape, ...]] = {
        "embeddings": tuple((*pair, facts.hidden) for pair in pairs),
        "cos": angles,
        "sin": angles,
        "rotary_rows": tuple(pairs),
        "last_slots": tuple((batch,) for batch in batches),
    }
    cache = tuple((batch, facts.kv_heads, slots, facts.head_dim) for batch in batches)
    return profile | dict.fromkeys(_caches(facts.layers), cache)


def _caches(layers: int) -> Iterator[str]:
    for index in range(layers):
        yield f"past_key_{index}"
        yield f"past_value_{index}"
