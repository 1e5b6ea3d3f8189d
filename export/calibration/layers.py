"""Each matrix's choices: whether its input bears a step, a balance for it, and the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from export.calibration.observe import Inputs, Observation
from export.calibration.plan import LayerPlan
from export.calibration.ranges import Product, choose_step
from export.graphs.matrices import matrices
from export.graphs.rows import Array
from export.lowering.balancing import sources

STRENGTHS: Final = (0.5, 0.65, 0.75, 0.85)
"""SmoothQuant's alpha: how much of the outliers moves into the weights; none is tried as well."""


HEAVY: Final = 4.0
"""An input with a heavier tail than this stays in float (see `tail`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What was decided for the matrices that read one tensor. factor: None where not balanced."""

    layers: Mapping[str, LayerPlan]
    factor: Array | None

    @property
    def error(self) -> float:
        """The sum of all errors."""
        return sum(layer.error for layer in self.layers.values())


def choose_layers(model: ir.Model, seen: Observation) -> Iterator[tuple[str | None, Chosen]]:
    """Decide for every matrix of a graph (not lowered yet): (source of its input, choice).

    The source is None where there is none that can be balanced.
    """
    weights = matrices(model)
    behind = sources(model)
    alone = set(weights) - {name for source in behind.values() for name in source.readers}
    for name, source in behind.items():
        inputs = seen.of(source.readers[0])
        read = {reader: weights[reader].numpy() for reader in source.readers}
        # Outliers of a heavy tail come in other columns in each picture: no balance foresees them.
        bearable = tail(inputs) <= HEAVY
        factors = [None, *(_factors(inputs, read, source.size) if bearable else ())]
        options = [_choose(inputs, read, factor) for factor in factors]
        yield name, min(options, key=lambda option: option.error)
    for name in sorted(alone):
        yield None, _choose(seen.of(name), {name: weights[name].numpy()}, None)


def tail(inputs: Inputs) -> float:
    """How far the largest |x| ever seen lies beyond what is usual, as a ratio.

    Usual is what 99.9 % of the sample stay within, or 99 % of the same column where that is more: a
    column that is large in every row is no tail, and can be balanced. A step that holds a tail
    leaves few numbers for the rest. Most of nano's inputs have 1 to 2, the projector's second 4,
    and those of `down_proj`, products of two activations, 6 to 25.
    """
    sizes = np.abs(inputs.rows)
    usual = np.maximum(np.quantile(sizes, 0.999), np.quantile(sizes, 0.99, axis=0))
    return float((inputs.peaks / np.maximum(usual, 1e-12)).max())


def _choose(inputs: Inputs, read: Mapping[str, Array], factor: Array | None) -> Chosen:
    seen, weights = inputs, list(read.values())
    if factor is not None:
        wide = np.tile(factor, inputs.rows.shape[1] // len(factor))
        seen = inputs.divided(wide)
        weights = [weight * wide for weight in weights]
    step, method, errors = choose_step(seen, [Product.of(seen, weight) for weight in weights])
    heavy = tail(inputs)
    why = f"its largest input is {heavy:.1f} times what is usual"
    kept = why if heavy > HEAVY else ""
    layers = {
        name: LayerPlan(step, method, error, kept) for name, error in zip(read, errors, strict=True)
    }
    return Chosen(layers, factor)


def _factors(inputs: Inputs, read: Mapping[str, Array], size: int) -> Sequence[Array]:
    """Give a factor [size] for each strength; inputs of several norms side by side share theirs.

    Columns count by the largest that was ever seen in them, not in the sample alone: rare outliers
    are what spoils answers.
    """
    columns = inputs.peaks.reshape(-1, size).max(axis=0)
    heights = np.max(
        [np.abs(weight.reshape(-1, size)).max(axis=0) for weight in read.values()], axis=0
    )
    columns, heights = (np.maximum(values, 1e-5) for values in (columns, heights))
    return [(columns**alpha / heights ** (1 - alpha)).astype(np.float32) for alpha in STRENGTHS]
