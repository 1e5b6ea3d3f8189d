"""What a bundle can be made for, and how close to its checkpoint it must stay: data, no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from export.lowering.fused import FUSED
from export.lowering.passes import Dialect
from export.lowering.primitive import PRIMITIVE
from export.lowering.standard import STANDARD
from idetex_edge.errors import ExportError
from idetex_edge.tensorrt.builders import BUILDERS


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of parity with the checkpoint (see `export.parity.report`).

    logits_error: largest max|a - b| / max|b|. vision_cosine: smallest of any token.
    top1_agreement: smallest share of an answer's steps at which both say the same token.
    choice_agreement: smallest share of multiple-choice questions answered alike.
    """

    logits_error: float
    vision_cosine: float
    top1_agreement: float
    choice_agreement: float


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights are stored: names in `export.lowering.matrices.FORMS`, and the limits.

    fallback: the form of layers that cost too much accuracy in theirs. embedding: numpy type of
    the embedding table and output matrix.
    """

    vision: str
    decoder: str
    fallback: str
    embedding: str
    limits: Limits

    @property
    def calibrated(self) -> bool:
        """Whether its matrices need the ranges of their inputs."""
        return "static" in self.vision + self.decoder


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of bundle.

    floats: what attention computes in and the KV cache holds. builder: the Python module that makes
    engines of the graphs, None where the graphs are run as they are. slots: the KV cache's only
    length, which TensorRT wants fixed; 0 for any, and less where the model's context is less.
    """

    dialect: Dialect
    floats: ir.DataType
    builder: str | None
    slots: int
    precisions: Mapping[str, Precision]

    @property
    def half(self) -> bool:
        """Whether it computes in FP16."""
        return self.floats == ir.DataType.FLOAT16


EXACT: Final = Limits(1e-4, 0.999999, 0.99, 0.99)
HALF: Final = Limits(0.02, 0.999, 0.98, 0.95)
EIGHT: Final = Limits(0.1, 0.98, 0.98, 0.95)
FOUR: Final = Limits(0.4, 0.98, 0.98, 0.95)
"""FP32, FP16, 8 bits, 4 bits.

What is answered decides below 16 bits; the logits' limit is for what few answers cannot show. 8
bits err by 0.6 % of a matrix's product, its calibrated input by up to 4 %: measured at the logits,
0.014 to 0.019 on nano, 0.10 on a random model of 2B's shape. 4 bits in blocks of 128 err by 12 %:
0.08 to 0.11 on nano, 0.27 on a tiny random model, and 0.75 on the one of 2B's shape, which fails;
transformers on weights rounded so is 0.74 off in 28 random layers.
"""

_ONNX_CPU: Final = {
    "fp32": Precision("float32", "float32", "float32", "float32", EXACT),
    "int8": Precision("picture_int8", "row_int8", "float32", "float16", EIGHT),
    "int4": Precision("picture_int8", "block_int4_128", "block_int8", "float16", FOUR),
    "int4-32": Precision("picture_int8", "block_int4_32", "block_int8", "float16", FOUR),
}
_ONNX_STANDARD: Final = {
    "fp32": Precision("float32", "float32", "float32", "float32", EXACT),
    "int8": Precision("static_int8", "static_int8", "stored_int8_32", "float16", EIGHT),
    "int8-weights": Precision("stored_int8_32", "stored_int8_32", "float32", "float16", EIGHT),
    "int4": Precision("stored_int8_32", "stored_int4_128", "stored_int8_32", "float16", FOUR),
    "int4-32": Precision("stored_int8_32", "stored_int4_32", "stored_int8_32", "float16", FOUR),
}
_TENSORRT: Final = {
    "fp16": Precision("float16", "float16", "float32", "float16", HALF),
    "int8": Precision(
        *("static_int8_float16", "static_int8_float16", "stored_int8_float16", "float16"),
        limits=EIGHT,
    ),
    "int8-weights": Precision(
        *("stored_int8_float16", "stored_int8_float16", "float16", "float16"), limits=EIGHT
    ),
    "int4": Precision(
        *("stored_int8_float16", "stored_int4_128_float16", "stored_int8_float16", "float16"),
        limits=FOUR,
    ),
}
_FULL, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def _module(target: str) -> str:
    return BUILDERS[target].module


TARGETS: Final[Mapping[str, Target]] = {
    "onnx-cpu": Target(FUSED, _FULL, None, 0, _ONNX_CPU),
    "onnx-standard": Target(STANDARD, _FULL, None, 0, _ONNX_STANDARD),
    "tensorrt-rtx": Target(STANDARD, _HALF, _module("tensorrt-rtx"), 4096, _TENSORRT),
    "tensorrt-11": Target(STANDARD, _HALF, _module("tensorrt-11"), 4096, _TENSORRT),
    "tensorrt-10.16": Target(STANDARD, _HALF, _module("tensorrt-10.16"), 4096, _TENSORRT),
    "tensorrt-10.3": Target(PRIMITIVE, _HALF, _module("tensorrt-10.3"), 4096, _TENSORRT),
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
