"""What bundles take on a device, computed from shapes: the table in `deploy/README.md`.

    python benchmarks/deployed_sizes.py [--slots 4096]

Disk is the graphs' weights and the embedding table, to the byte; an engine built of them takes
about as much again. Memory is those weights, the output matrix in FP32 where it is multiplied so,
and keys and values of three sequences, a picture's tasks: no activations, nothing of the runtime's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.shapes import NANO, TEXT, Shapes, config_of
from export.bundling.graphs import EMBEDDING, Recipe
from export.bundling.sizes import sizes_of
from export.calibration.plan import Plan
from export.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint
from export.targets import find_target
from idetex_edge.cli.script import run

_FORMS: Final = (
    *(("onnx-cpu", "int8"), ("onnx-cpu", "int4"), ("tensorrt-10.3", "fp16")),
    *(("tensorrt-11", "fp16"), ("tensorrt-11", "int8"), ("tensorrt-11", "int4")),
)
_SEQUENCES: Final = 3


def sizes_table(slots: int) -> str:
    """The table as Markdown: disk / memory in GB, a line a model, a column a form."""
    models: dict[str, Checkpoint] = {"nano": open_checkpoint(str(NANO), None)}
    for shape in TEXT:
        models[shape] = describe_checkpoint(Path(shape), config_of(shape), Shapes(shape))
    lines = [["model", *(f"{target} {precision}" for target, precision in _FORMS)]]
    lines.append(["---"] * len(lines[0]))
    for name, checkpoint in models.items():
        cells = [_cell(checkpoint, target, precision, slots) for target, precision in _FORMS]
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(checkpoint: Checkpoint, target: str, precision: str, slots: int) -> str:
    kind, form = find_target(target, precision)
    sizes = sizes_of(Recipe(checkpoint, kind, form, Plan()))
    text = checkpoint.text
    token = 2 * text.layers * text.kv_heads * text.head_dim * kind.floats.itemsize
    output = 0 if form.embedding == "float32" else 4 * text.vocab * text.hidden
    weights = sizes.total - (sizes.files[EMBEDDING] if not checkpoint.tied else 0)
    memory = weights + output + _SEQUENCES * slots * token
    return f"{_gigabytes(sizes.total)} / {_gigabytes(memory)}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f}" if size < 1e10 else f"{size / 1e9:.1f}"


def main(
    slots: Annotated[int, typer.Option(help="Tokens that a sequence may have.")] = 4096,
) -> None:
    """Print what bundles take."""
    typer.echo(sizes_table(slots))


if __name__ == "__main__":
    run(main)
