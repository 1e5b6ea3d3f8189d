"""What a bundle can be made for, and how close to its checkpoint it must stay: data, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from idetex_edge.errors import ExportError


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights are stored, and the limits of parity with the checkpoint.

    vision, decoder: names in `export.graphs.matrices.MATRICES`. embedding: numpy type of the
    embedding table and output matrix. logits_error: largest max|a - b| / max|b|. vision_cosine:
    smallest of any token. top1_agreement: smallest share of steps at which both say the same token.
    """

    vision: str
    decoder: str
    embedding: str
    logits_error: float
    vision_cosine: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of bundle: the engine that runs it, and its precisions by name."""

    engine: str
    precisions: Mapping[str, Precision]


TARGETS: Final[Mapping[str, Target]] = {
    "onnx-cpu": Target(
        engine="onnx:cpu",
        precisions={
            "fp32": Precision("float32", "float32", "float32", 1e-4, 0.999999, 0.99),
            "int8": Precision("dynamic_int8", "block_int8", "float16", 0.1, 0.99, 0.95),
        },
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
