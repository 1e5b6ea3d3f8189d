"""What a conversion will take, before it starts: files to the byte, and memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from export.bundling.graphs import EMBEDDING, GRAPHS, Recipe, lowered_graphs
from export.calibration.observe import COMPARED, ROWS
from export.calibration.plan import LayerPlan, Plan
from export.graphs.decoder import embedding_table
from export.graphs.matrices import matrices, plain_graphs
from export.parity.answers import STEPS
from export.parity.questions import CHOICES, WRITTEN
from idetex_edge.errors import ExportError

_BASE: Final = 750_000_000
"""Bytes that Python, torch, transformers and ONNX Runtime take: all that nano's conversion does."""

_PACKED: Final = 0.3
"""Share of the matrices' bytes that ONNX Runtime holds a second time, packed for its kernels. With
it the estimate is within 0.1 GB of the peaks measured on a model of 2B's shape (5.76 GB in INT8,
4.79 in INT4) and of nano's (0.75), on scikit-image's three pictures. Photographs of 0.6 megapixels
take 0.2 GB more, and a benchmark of them 0.3."""

_COPIES: Final = 3
"""How often the largest tensor lies in memory in float32 while it is read, joined and packed."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of each file with weights, and the peak of memory."""

    files: Mapping[str, int]
    memory: int

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def sizes_of(recipe: Recipe) -> Sizes:
    """Describe a recipe's files without reading a weight.

    The peak of memory is while parity is proven: the bundle is loaded, its matrices in part packed
    once more, the output matrix in float32 as its kernel wants it, and the checkpoint streams past.
    """
    watched = _watched(recipe)
    recipe = replace(recipe, plan=supposed(recipe))
    table = embedding_table(recipe.checkpoint, recipe.precision.embedding)
    files = {EMBEDDING: table.nbytes}
    for name, model in lowered_graphs(recipe, table):
        weights = [value.const_value for value in model.graph.initializers.values()]
        files[f"{GRAPHS[name]}.data"] = sum(
            weight.nbytes for weight in weights if weight is not None and weight is not table
        )
    text = recipe.checkpoint.text
    output_matrix = 4 * text.vocab * text.hidden
    largest = max(output_matrix, 4 * text.intermediate * text.hidden * _COPIES)
    packed = _PACKED * (sum(files.values()) - table.nbytes)
    memory = _BASE + sum(files.values()) + int(packed) + output_matrix + largest + watched
    return Sizes(files, memory)


def _watched(recipe: Recipe) -> int:
    """Bytes that calibration keeps: rows of every matrix's input, and the logits it compares."""
    if recipe.plan.layers or not recipe.precision.calibrated:
        return 0
    columns = sum(
        weight.shape.numpy()[1]
        for model in plain_graphs(recipe.checkpoint)
        for weight in matrices(model).values()
    )
    steps = len(WRITTEN) * (STEPS + 1) + len(CHOICES)
    return 4 * (ROWS * columns + COMPARED * steps * recipe.checkpoint.text.vocab)


def require_space(recipe: Recipe, folder: Path) -> None:
    """Raise ExportError when the disk has no room for the bundle."""
    needed, free = sizes_of(recipe).total, shutil.disk_usage(folder).free
    if needed > free:
        raise ExportError(
            f"the bundle takes {needed / 1e9:.2f} GB and {folder.parent} has {free / 1e9:.2f} GB "
            "free; make room or give another --output"
        )


def supposed(recipe: Recipe) -> Plan:
    """Give every matrix a step where calibration has not: sizes do not depend on it."""
    if recipe.plan.layers or not recipe.precision.calibrated:
        return recipe.plan
    layers = {
        name: LayerPlan(1.0, "", 0.0)
        for model in plain_graphs(recipe.checkpoint)
        for name in matrices(model)
    }
    return replace(recipe.plan, layers=layers)
