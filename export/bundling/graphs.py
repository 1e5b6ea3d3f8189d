"""A checkpoint's graphs for a target: built once, then balanced, lowered and given their slots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import onnx_ir as ir

from export.calibration.plan import Plan
from export.checkpoint import Checkpoint
from export.graphs.decoder import decoder_graph
from export.graphs.vision import vision_graph
from export.lowering.balancing import balance
from export.lowering.matrices import linear_rule
from export.lowering.passes import lower
from export.lowering.slots import fix_slots
from export.targets import Precision, Target
from export.tensorrt.kernels import suited

GRAPHS: Final = {"vision": "vision.onnx", "decoder": "decoder.onnx"}
EMBEDDING: Final = "embedding.bin"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a checkpoint's graphs look like."""

    checkpoint: Checkpoint
    target: Target
    precision: Precision
    plan: Plan

    @property
    def slots(self) -> int:
        """The KV cache's fixed length, 0 where it is free."""
        return min(self.target.slots, self.checkpoint.text.max_context)

    @property
    def applied(self) -> Plan:
        """The plan, but for what only FP16 cannot hold where the target computes in FP32."""
        return self.plan if self.target.half else replace(self.plan, wide={})


def lowered_graphs(recipe: Recipe, embedding: ir.TensorProtocol) -> Iterator[tuple[str, ir.Model]]:
    """Give each graph's name and the graph, as the target runs it; weights are read when written.

    embedding: the embedding table, as written or described (see `decoder_graph`).
    """
    yield "vision", _lowered(vision_graph(recipe.checkpoint), recipe, recipe.precision.vision)
    # On a CPU a matrix stored in FP16 is widened when it is loaded.
    floats = embedding.dtype if recipe.target.half else ir.DataType.FLOAT
    decoder = decoder_graph(recipe.checkpoint, embedding, floats)
    yield "decoder", _lowered(decoder, recipe, recipe.precision.decoder)


def _lowered(model: ir.Model, recipe: Recipe, form: str) -> ir.Model:
    target, precision, plan = recipe.target, recipe.precision, recipe.applied

    def choose(name: str) -> tuple[str, float]:
        return plan.choose(form, precision, name)

    balance(model, plan.factors())
    dialect = suited(target, recipe.checkpoint)
    lower(model, dialect, linear_rule(choose), target.floats)
    if recipe.slots:
        fix_slots(model, recipe.slots)
    return model
