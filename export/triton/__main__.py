"""`python -m export.triton`: add to a bundle what the `triton` engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idetex_edge.cli.script import run


def add(
    bundle: Annotated[Path, typer.Option(help="Bundle to add to.")],
    model: Annotated[str, typer.Option(help="Checkpoint that it was made from.")],
    kernels: Annotated[Path, typer.Option(help="Output of python -m kernels build.")],
    precision: Annotated[str, typer.Option(help="fp16, int8 or int4.")] = "int8",
    cache: Annotated[str, typer.Option(help="Keys and values: int8 or float.")] = "int8",
) -> None:
    """Add weights and kernels for NVIDIA GPUs to a bundle."""
    from export.checkpoint import open_checkpoint
    from export.triton.add import add_triton, measured_plan
    from idetex_edge.bundle import open_bundle
    from idetex_edge.cli.stages import showing_stages

    with showing_stages() as advance:
        grown, checkpoint = open_bundle(bundle), open_checkpoint(model)
        plan = measured_plan(grown, checkpoint, advance)
        done = add_triton(grown, checkpoint, kernels, precision, cache, plan, advance)
    typer.echo(f"{done.path}: {precision} weights, {cache} keys and values")


if __name__ == "__main__":
    run(add)
