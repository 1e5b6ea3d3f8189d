"""`idetex-edge verify`: whether a bundle is whole, and runs here as where it was made."""

from __future__ import annotations

from typing import Annotated

import typer

from idetex_edge.assessor import Assessor
from idetex_edge.bundle import open_bundle
from idetex_edge.bundle import verify as verify_files
from idetex_edge.cli.options import EngineName
from idetex_edge.engines import AUTO
from idetex_edge.errors import EngineError
from idetex_edge.hub import bundle_folder
from idetex_edge.smoke import check

BundlePlace = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle folder or Hugging Face hub id.")
]


def verify(bundle: BundlePlace, engine: EngineName = AUTO) -> None:
    """Hash every file of a bundle, and repeat its smoke check."""
    opened = open_bundle(bundle_folder(bundle))
    verify_files(opened)
    typer.echo(f"{opened.path}: {len(opened.manifest.files)} files are as they were made")
    try:
        assessor = Assessor(opened.path, engine=engine)
    except EngineError as error:
        if engine != AUTO:
            raise
        typer.echo(f"the smoke check was not run: {error}")
        return
    worst = check(opened, assessor)
    typer.echo(
        "the bundle notes no figures for a smoke check"
        if worst is None
        else f"the smoke check is passed on {assessor.engine}: probabilities differ by {worst:.5f}"
    )
