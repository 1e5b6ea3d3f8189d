"""Which variants a model needs: a table of shapes, and the kernels that each asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kernels import (
    append,
    decode_attention,
    linear,
    norm,
    prefill_attention,
    projector,
    quantize,
)
from kernels.variant import Variant


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model's shape its kernels are compiled for.

    head_dim, group: of the language model; query heads on each key-value head. vision_head_dim.
    hidden, vision_hidden: sizes of the two residual streams.
    """

    head_dim: int
    group: int
    hidden: int
    vision_head_dim: int
    vision_hidden: int


MODELS: Final[Mapping[str, Shape]] = {
    "nano": Shape(64, 2, 256, 64, 192),
    "qwen2.5-vl-3b": Shape(128, 8, 2048, 80, 1280),
}

WEIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fp16": ("float",),
    "int8": ("float", "int8", "integer"),
    "int4": ("float", "int8", "integer", "int4"),
}
"""Number formats of matrices (see `kernels.linear`) by a bundle's precision."""

_OF_WEIGHTS_ALONE: Final = ("plain", "gated", "residual")
"""What follows weight-only matrices. Only the language model has any, and its head stays FP16."""

CACHES: Final = ("float", "int8")


def shape_of(manifest: Path) -> Shape:
    """Read a bundle's `manifest.json`; raises OSError, ValueError or KeyError where it cannot."""
    data: Mapping[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    text, vision = data["text"], data["vision"]
    return Shape(
        text["head_dim"],
        text["heads"] // text["kv_heads"],
        text["hidden"],
        vision["head_dim"],
        vision["hidden"],
    )


def needed(shapes: Iterable[Shape], precisions: Iterable[str]) -> list[Variant]:
    """Every variant that models of these shapes and precisions run, each once, by name."""
    found: dict[str, Variant] = {}
    for shape in shapes:
        for variant in (*_attention(shape), *_norms(shape)):
            found[variant.name] = variant
    for form in {form for precision in precisions for form in WEIGHTS[precision]}:
        for epilogue in _OF_WEIGHTS_ALONE if form in ("int8", "int4") else linear.EPILOGUES:
            for rows in linear.FORMS[form]:
                variant = linear.variant(form, epilogue, rows)
                found[variant.name] = variant
    return [found[name] for name in sorted(found)]


def _attention(shape: Shape) -> Iterable[Variant]:
    yield append.variant(shape.vision_head_dim, "float")
    yield prefill_attention.variant(shape.vision_head_dim, "float")
    yield decode_attention.merge_variant(shape.head_dim)
    for cache in CACHES:
        yield append.variant(shape.head_dim, cache)
        yield prefill_attention.variant(shape.head_dim, cache)
        for shared in (False, True):
            yield decode_attention.variant(shape.head_dim, shape.group, cache, shared=shared)


def _norms(shape: Shape) -> Iterable[Variant]:
    yield quantize.variant()
    for output in ("fp16", "int8"):
        yield norm.variant("rms", output, shape.hidden)
    for kind in ("rms", "layer"):
        for output in ("fp16", "int8"):
            yield norm.variant(kind, output, shape.vision_hidden)
            yield projector.variant(kind, output, shape.vision_hidden)
