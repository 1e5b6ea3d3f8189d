"""`idetex-edge build`: make a bundle's TensorRT engines on this machine."""

from __future__ import annotations

import typer

from idetex_edge.bundle import open_bundle
from idetex_edge.cli.stages import showing_stages
from idetex_edge.cli.verify import BundlePlace
from idetex_edge.hub import bundle_folder
from idetex_edge.tensorrt.build import build_engines


def build(bundle: BundlePlace) -> None:
    """Build the engines of a TensorRT bundle, and print what they take."""
    opened = open_bundle(bundle_folder(bundle))
    with showing_stages() as advance:
        _, reports = build_engines(opened, advance)
    for report in reports:
        typer.echo(report)
