"""From photographs to a plan (see `export.calibration`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from export.bundling.graphs import Recipe
from export.bundling.write import write_draft
from export.calibration.benchmark import hold
from export.calibration.fallback import Agreement, agreement, search
from export.calibration.layers import choose_layers
from export.calibration.observe import Observation, observe
from export.calibration.overflow import overflowing, require_attention
from export.calibration.plan import LayerPlan, Plan
from export.checkpoint import Checkpoint
from export.graphs.matrices import plain_graphs
from export.graphs.write import Advance
from export.lowering.rounding import LARGEST
from export.parity.answers import Answering
from export.parity.pictures import Photograph
from export.parity.reference import Reference
from export.parity.scoreboard import Held
from export.targets import find_target
from idetex_edge.bundle import Bundle
from idetex_edge.engines.onnx import OnnxEngine

_QUICK: Final = ("onnx-cpu", "int8")
"""What writes the answers that calibration reads: the fastest there is."""


def calibrate(
    recipe: Recipe,
    reference: Reference,
    pictures: Sequence[Photograph],
    steps: int,
    advance: Advance,
    held: Held | None = None,
) -> Plan:
    """Choose every matrix's form and step for a recipe's target and precision.

    That is which matrices cannot compute in FP16; where the precision is calibrated, ranges and
    what stays in float as well. held: a benchmark on which no score may fall too far. Raises
    ExportError where the target's attention computes in FP16 and cannot.
    """
    with TemporaryDirectory() as place:
        quick = _quick_bundle(recipe.checkpoint, Path(place), advance)
        answering = Answering(quick, OnnxEngine(quick))
        seen = observe(reference, quick, answering, pictures, steps, advance)
    plan = Plan(wide=overflowing(seen), pictures=len(pictures))
    if recipe.target.half:
        require_attention(plan)
    if not recipe.precision.calibrated:
        return plan
    plan = _choose(recipe.checkpoint, seen, plan, advance)

    def measure(tried: Plan) -> Agreement:
        with TemporaryDirectory() as place:
            bundle = write_draft(replace(recipe, plan=tried), Path(place), _quietly)
            return agreement(Answering(bundle, OnnxEngine(bundle)), seen.reads)

    plan = search(plan, recipe.precision.limits, measure, advance)
    if held is None:
        return plan
    return hold(plan, lambda tried: held.scoreboard(tried).shortfalls(), measure, advance)


def _quietly(stage: str, done: int, total: int) -> None:
    """Report nothing: what a search tries has no bar of its own."""


def _quick_bundle(checkpoint: Checkpoint, folder: Path, advance: Advance) -> Bundle:
    target, precision = find_target(*_QUICK)
    return write_draft(Recipe(checkpoint, target, precision, Plan()), folder, advance)


def _choose(checkpoint: Checkpoint, seen: Observation, plan: Plan, advance: Advance) -> Plan:
    layers: dict[str, LayerPlan] = {}
    balance: dict[str, list[float]] = {}
    total = len(seen.inputs)
    for model in plain_graphs(checkpoint):
        for source, chosen in choose_layers(model, seen):
            layers.update(chosen.layers)
            if source is not None and chosen.factor is not None:
                balance[source] = [float(value) for value in chosen.factor]
            advance("choosing ranges", min(len(layers), total), total)
    return replace(
        plan, layers=layers, balance=balance, keys=_steps(seen.keys), values=_steps(seen.values)
    )


def _steps(largest: np.ndarray | None) -> list[list[float]]:
    return [] if largest is None else (largest / LARGEST).tolist()
