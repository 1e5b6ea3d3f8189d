"""What the machine's rates allow a bundle at best, where that is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from idetex_edge.bundle import Bundle, Manifest
from idetex_edge.measuring.rates import Rates
from idetex_edge.measuring.rows import Place
from idetex_edge.preprocess import smart_resize

_WEIGHT_BYTES: Final = {"fp32": 4.0, "int8": 1.0, "int4": 0.5, "int4-32": 0.5}
"""By precision; scales, a few per cent more, are left out."""


def rooflines(
    bundle: Bundle, engine: str, model: str, scenario: str, size: tuple[int, int], rates: Rates
) -> dict[Place, float]:
    """The best figures possible for the metrics of one scenario with a single request.

    Matrices are supposed to run at the rate of 8-bit multiplication (float32's in an fp32 bundle),
    attention of the vision encoder at float32's, and a decoded token to read every weight of the
    decoder and of the output matrix once. Attention of the decoder and its KV cache are left out.
    Empty for precisions and targets of which this is not true.
    """
    manifest = bundle.manifest
    if manifest.precision not in _WEIGHT_BYTES:
        return {}
    width = _WEIGHT_BYTES[manifest.precision]
    multiply = rates.float32 if width == 4 else rates.int8
    patches = _patches(manifest, size)
    tokens = patches // manifest.vision.merge**2
    weights = bundle.file(f"{manifest.graphs['vision']}.data").stat().st_size / _vision_width(width)
    vision = 2 * weights * patches / multiply + sum(_attention(manifest, patches)) / rates.float32
    prefill = 2 * _decoder_weights(manifest) * tokens / multiply
    text = manifest.text
    # The output matrix is multiplied by in float32, whatever it is stored in.
    step = (width * _decoder_weights(manifest) + 4 * text.vocab * text.hidden) / rates.read
    best = {"vision": 1000 * vision, "prefill": tokens / prefill, "decode": 1 / step}
    words = f"{size[0]}x{size[1]}"
    return {Place(scenario, words, engine, model, metric): best[metric] for metric in best}


def _vision_width(width: float) -> float:
    """Bytes of a weight of the vision encoder, which keeps 8 bits where the decoder has fewer."""
    return max(width, 1.0)


def _patches(manifest: Manifest, size: tuple[int, int]) -> int:
    own, (width, height) = manifest.preprocessor, size
    sides = smart_resize(
        height, width, own.patch_size * own.merge_size, own.min_pixels, own.max_pixels
    )
    return sides[0] * sides[1] // own.patch_size**2


def _decoder_weights(manifest: Manifest) -> int:
    text = manifest.text
    attention = text.hidden * text.head_dim * 2 * (text.heads + text.kv_heads)
    return text.layers * (attention + 3 * text.hidden * text.intermediate)


def _attention(manifest: Manifest, patches: int) -> Iterator[float]:
    """Operations of each block's attention: scores and their sums."""
    vision = manifest.vision
    window = min(patches, (vision.window // vision.patch) ** 2)
    for block in range(vision.layers):
        seen = patches if block in vision.full_blocks else window
        yield 4 * patches * seen * vision.heads * vision.head_dim
