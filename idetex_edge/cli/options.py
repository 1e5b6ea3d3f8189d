"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from idetex_edge.assessor import NANO, Assessor
from idetex_edge.engines import AUTO, ENGINES
from idetex_edge.image import MAX_PIXELS

Paths: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Pictures, folders (with all below), or patterns like 'a/**/*.png'."
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line, for programs.")
]
BundleName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--bundle", help="A bundle folder or Hugging Face hub id; the bundled nano if not given."
    ),
]
EngineName: TypeAlias = Annotated[
    str, typer.Option("--engine", help=f"What to run it on: {', '.join((AUTO, *ENGINES))}.")
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
]
DistortionType: TypeAlias = Annotated[
    str | None, typer.Option("--type", help="Look for one distortion, such as 'motion blur'.")
]
MaxPixels: TypeAlias = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse pictures with more pixels than this.")
]


def open_assessor(
    bundle: str | None,
    engine: str = AUTO,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Assessor:
    """Make the Assessor that the options ask for."""
    name = NANO if bundle is None else bundle
    return Assessor.from_pretrained(name, engine=engine, threads=threads, max_pixels=max_pixels)
