"""`idetex-edge bench`: how fast a bundle is on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from idetex_edge.assessor import NANO
from idetex_edge.bundle import open_bundle
from idetex_edge.cli.options import BundleName, EngineName, Threads
from idetex_edge.cli.stages import showing_stages
from idetex_edge.hub import bundle_folder

DEFAULT_ENGINE = "onnx:cpu"


def bench(
    bundle: BundleName = None,
    engine: EngineName = DEFAULT_ENGINE,
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each figure is taken.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here too.")
    ] = None,
) -> None:
    """How fast a bundle is here: four scenarios, two sizes, beside what the machine allows."""
    # Imported here: no other command needs them.
    from idetex_edge.measuring.benchmark import Subject, benchmark
    from idetex_edge.measuring.report import tables

    folder = bundle_folder(NANO if bundle is None else bundle)
    subject = Subject(open_bundle(folder).manifest.name, folder)
    cores = threads or os.cpu_count() or 1
    with showing_stages() as advance:
        found = benchmark([subject], [engine], cores, repeats, "idetex-edge bench", advance)
    if output is not None:
        found.save(output)
    Console(highlight=False).print(tables(found))
