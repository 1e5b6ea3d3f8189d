"""`idetex-edge batch`: many pictures on many machines, with Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idetex_edge.batch.dataset import LOCAL, SHARD, assess_dataset
from idetex_edge.cli.options import BundleName, EngineName, MaxPixels
from idetex_edge.cli.stages import showing_stages
from idetex_edge.engines import AUTO
from idetex_edge.image import MAX_PIXELS


def batch(
    pictures: Annotated[
        str, typer.Argument(metavar="INPUT", help="A folder, or a pattern like 'a/**/*.png'.")
    ],
    output: Annotated[
        Path, typer.Argument(help="Folder for Parquet shards; a stopped run goes on in it.")
    ],
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster, or 'local' to start Ray here.")
    ] = LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers; as many as there are CPUs for if not given.")
    ] = None,
    shard: Annotated[int, typer.Option(min=1, help="Pictures in a shard.")] = SHARD,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a worker.")] = 1,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Assess pictures with Ray into a folder of Parquet shards, a row a picture."""
    with showing_stages() as advance:
        failed = assess_dataset(
            pictures,
            output,
            bundle=bundle,
            engine=engine,
            threads=threads,
            max_pixels=max_pixels,
            workers=workers,
            shard=shard,
            ray_address=ray,
            advance=advance,
        )
    typer.echo(f"written to {output}" + (f"; {failed} pictures failed" if failed else ""))
    raise typer.Exit(int(failed > 0))
