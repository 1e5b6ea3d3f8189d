"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idetex_edge.batch.folder import assess_to_table
from idetex_edge.batch.tables import check_table
from idetex_edge.cli import views
from idetex_edge.cli.batch import batch
from idetex_edge.cli.bench import bench
from idetex_edge.cli.build import build
from idetex_edge.cli.demo import run_demo
from idetex_edge.cli.doctor import doctor
from idetex_edge.cli.evaluate import evaluate
from idetex_edge.cli.info import print_info
from idetex_edge.cli.options import (
    AsJson,
    BundleName,
    DistortionType,
    EngineName,
    MaxPixels,
    Paths,
    Threads,
    open_assessor,
)
from idetex_edge.cli.overlays import place_overlays
from idetex_edge.cli.printing import Result, print_each
from idetex_edge.cli.quiet import QuietCommands
from idetex_edge.cli.serve import serve
from idetex_edge.cli.stages import showing_stages
from idetex_edge.cli.verify import verify
from idetex_edge.engines import AUTO
from idetex_edge.errors import RequestError
from idetex_edge.image import MAX_PIXELS
from idetex_edge.overlay import save_image_atomically
from idetex_edge.parsing import plain_text
from idetex_edge.pictures import Found, find_pictures
from idetex_edge.requests import choice_request, locate_request, question_request, single_request

app = typer.Typer(
    cls=QuietCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Explain image quality on this device: how good, what is wrong, where, and how badly. "
    "Exit codes: 0 all fine, 1 something failed, 2 wrong usage.",
)


@app.command()
def assess(
    paths: Paths,
    as_json: AsJson = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the picture with what was found drawn onto it; a folder for several."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write a table instead of printing: .parquet, .jsonl or .csv. A stopped run given "
            "the same one goes on where it was."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="With --output: write an HTML page about the table.")
    ] = None,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score, distortions and a description of each picture."""
    pictures = find_pictures(paths)
    if report is not None and output is None:
        raise RequestError("--report is about a table; give --output too")
    if output is not None:
        if overlay is not None or as_json:
            raise RequestError("--output excludes --overlay and --json; leave them out")
        check_table(output)
        assessor = open_assessor(bundle, engine, threads, max_pixels)
        with showing_stages() as advance:
            failed = assess_to_table(assessor, pictures, output, report=report, advance=advance)
        typer.echo(f"written to {output}" + (f"; {failed} pictures failed" if failed else ""))
        raise typer.Exit(int(failed > 0))
    places = {} if overlay is None else place_overlays(overlay, pictures)
    assessor = open_assessor(bundle, engine, threads, max_pixels)

    def judge(picture: Found) -> Result:
        assessment = assessor.assess(picture.path)
        data = assessment.to_dict()
        # The same picture gives the same line.
        del data["timings"]
        place = places.get(picture)
        if place is not None:
            save_image_atomically(assessment.overlay(), place)
            data["overlay"] = str(place)
        view = views.assessment_view(picture.path, assessment, assessor.engine, place)
        return Result(data, view)

    print_each(pictures, as_json, judge)


@app.command()
def score(
    paths: Paths,
    as_json: AsJson = False,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """How good each picture is, 0..100."""
    assessor = open_assessor(bundle, engine, threads, max_pixels)

    def judge(picture: Found) -> Result:
        found = assessor.score(picture.path)
        return Result(found.to_dict(), views.score_line(picture.path, found.score, found.level))

    print_each(find_pictures(paths), as_json, judge)


@app.command()
def ground(
    paths: Paths,
    region: Annotated[
        str | None,
        typer.Option(metavar="X1,Y1,X2,Y2", help="Look only here, in pixels of the picture."),
    ] = None,
    kind: DistortionType = None,
    as_json: AsJson = False,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """What is wrong with each picture, and where."""
    if region is not None and kind is not None:
        raise RequestError("--region and --type exclude each other; give one of them")
    corners = None if region is None else _corners(region)
    if kind is not None:
        locate_request(kind)
    assessor = open_assessor(bundle, engine, threads, max_pixels)

    def judge(picture: Found) -> Result:
        seen = assessor.encode(picture.path)
        found = assessor.ground(seen, corners) if kind is None else assessor.locate(seen, kind)
        data = {"distortions": [distortion.to_dict() for distortion in found]}
        return Result(data, views.distortions_view(picture.path, seen.image.size, found))

    print_each(find_pictures(paths), as_json, judge)


@app.command()
def ask(
    paths: Paths,
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask.")],
    choice: Annotated[
        list[str] | None,
        typer.Option("--choice", "-c", help="An answer to choose from: two or more, or none."),
    ] = None,
    as_json: AsJson = False,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Put a question about each picture: with --choice multiple-choice, else to be answered."""
    choices = choice or []
    if choices:
        choice_request(question, choices)
    else:
        question_request(question)
    assessor = open_assessor(bundle, engine, threads, max_pixels)

    def judge(picture: Found) -> Result:
        if not choices:
            said = assessor.answer(picture.path, question)
            return Result({"answer": said}, views.said_view(picture.path, plain_text(said)))
        answer = assessor.ask(picture.path, question, choices)
        return Result(answer.to_dict(), views.answer_view(picture.path, choices, answer))

    print_each(find_pictures(paths), as_json, judge)


@app.command()
def describe(
    paths: Paths,
    kind: DistortionType = None,
    as_json: AsJson = False,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Describe each picture's quality in words, shown as they are written."""
    if kind is not None:
        single_request(kind)
    assessor = open_assessor(bundle, engine, threads, max_pixels)

    def judge(picture: Found) -> Result:
        seen = assessor.encode(picture.path)
        view = views.heading(picture.path, seen.image.size)
        if as_json:
            return Result(assessor.describe(seen, kind).to_dict(), view)
        return Result({}, view, views.readable(assessor.describe(seen, kind, stream=True)))

    print_each(find_pictures(paths), as_json, judge)


@app.command()
def info(bundle: BundleName = None, engine: EngineName = AUTO, as_json: AsJson = False) -> None:
    """Which model and engine are in use, and how big they are."""
    print_info(open_assessor(bundle, engine), as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where to write the overlay.")] = Path(
        "idetex-demo.png"
    ),
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
) -> None:
    """Spoil a known part of a photograph, and show what is found."""
    run_demo(open_assessor(bundle, engine, threads), output)


app.command()(bench)
app.command()(evaluate)
app.command()(verify)
app.command()(build)
app.command()(doctor)
app.command()(serve)
app.command()(batch)


def _corners(region: str) -> list[int]:
    try:
        x1, y1, x2, y2 = (int(number) for number in region.split(","))
    except ValueError:
        raise RequestError(
            f"--region {region!r} is not X1,Y1,X2,Y2; give four whole numbers of pixels"
        ) from None
    return [x1, y1, x2, y2]
