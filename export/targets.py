"""What a bundle can be made for, and how close to its checkpoint it must stay: data, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from idetex_edge.errors import ExportError


@dataclass(frozen=True, slots=True)
class Precision:
    """Limits of parity: the largest relative logits error, the smallest vision cosine."""

    logits_error: float
    vision_cosine: float


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of bundle: the engine that runs it, and its precisions by name."""

    engine: str
    precisions: Mapping[str, Precision]


TARGETS: Final[Mapping[str, Target]] = {
    "onnx-cpu": Target(
        engine="onnx:cpu",
        precisions={"fp32": Precision(logits_error=1e-4, vision_cosine=0.999999)},
    ),
}


def find_target(target: str, precision: str) -> tuple[Target, Precision]:
    """Look a target and one of its precisions up; raises ExportError listing what there is."""
    if target not in TARGETS:
        raise ExportError(f"unknown target {target!r}; known are {', '.join(TARGETS)}")
    found = TARGETS[target]
    if precision not in found.precisions:
        known = ", ".join(found.precisions)
        raise ExportError(f"target {target} has no precision {precision!r}; it has {known}")
    return found, found.precisions[precision]
