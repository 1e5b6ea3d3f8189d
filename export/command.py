"""`python -m export convert`: the options, and what is told before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idetex_edge.cli.stages import showing_stages

if TYPE_CHECKING:
    from export.bundling.sizes import Sizes
    from export.convert import Conversion


def convert(
    model: Annotated[
        str, typer.Option(help="Checkpoint folder or hub id: Qwen2-VL or Qwen2.5-VL.")
    ],
    output: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    target: Annotated[str, typer.Option(help="What to make it for.")] = "onnx-cpu",
    precision: Annotated[str, typer.Option(help="Number format of the weights.")] = "fp32",
    adapter: Annotated[Path | None, typer.Option(help="LoRA adapter folder to merge in.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Photographs to calibrate with and, others of them, to prove on."),
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="A bundle's calibration.json to use again.")
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(help="Benchmark folder (as for `idetex-edge evaluate`): no score may fall."),
    ] = None,
    drafts: Annotated[
        Path | None,
        typer.Option(help="Pictures to learn from what answers mostly say, for drafts of them."),
    ] = None,
    kernels: Annotated[
        Path | None,
        typer.Option(help="Output of `python -m kernels build`, for the triton engine's part."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    allow_degraded: Annotated[
        bool, typer.Option(help="Keep a bundle that fails its proof, and note that it does.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only tell what would be made, and what it takes.")
    ] = False,
) -> None:
    """Convert a checkpoint into a bundle and prove that it says the same."""
    # Imported here: torch and transformers take seconds.
    from transformers.utils import logging

    from export import convert as converting
    from export.bundling.sizes import sizes_of
    from export.parity.scoreboard import exact_recipe
    from export.tensorrt.kernels import without_kernel

    logging.disable_progress_bar()
    wanted = converting.Conversion(
        model=model,
        output=output,
        target=target,
        precision=precision,
        adapter=adapter,
        calibration=calibration,
        ranges=ranges,
        bench=bench,
        drafts=drafts,
        kernels=kernels,
        overwrite=overwrite,
        allow_degraded=allow_degraded,
    )
    recipe = converting.recipe_of(wanted)
    for attention, reason in without_kernel(recipe.target, recipe.checkpoint):
        typer.echo(f"{attention.operator}: {reason}, so it is built of smaller operators")
    if dry_run:
        sizes = sizes_of(recipe)
        if bench is not None:
            exact = sizes_of(exact_recipe(recipe))
            sizes = replace(sizes, memory=max(sizes.memory, exact.memory))
        typer.echo(_plan(wanted, sizes))
        return
    with showing_stages() as advance:
        made = converting.convert(wanted, advance)
    manifest = made.bundle.manifest
    size = sum(facts.bytes for facts in manifest.files.values())
    typer.echo(f"{made.bundle.path}: {manifest.family} for {target}, {precision}, {size:,} bytes")
    for name, why in made.kept.items():
        typer.echo(f"with a float input: {name}, {why}")
    for report in made.engines:
        typer.echo(report)
    if target.startswith("tensorrt") and not made.engines:
        typer.echo(f"build its engines on the device: idetex-edge build {made.bundle.path}")


def _plan(wanted: Conversion, sizes: Sizes) -> str:
    lines = [f"{wanted.model} for {wanted.target}, {wanted.precision}, into {wanted.output}"]
    lines += [f"  {name}: {size / 1e6:,.1f} MB" for name, size in sizes.files.items()]
    lines.append(f"  together: {sizes.total / 1e6:,.1f} MB on disk")
    lines.append(f"  memory: about {sizes.memory / 1e9:.1f} GB at its peak")
    return "\n".join(lines)
