"""The workshop's command line: `python -m export COMMAND`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from idetex_edge.errors import IdetexError

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def workshop() -> None:
    """Make, prove and inspect models for idetex-edge."""


# Commands import what they run inside themselves: torch alone takes seconds.


@app.command()
def convert(
    model: Annotated[Path, typer.Option(help="Checkpoint folder: Qwen2-VL or Qwen2.5-VL.")],
    output: Annotated[Path, typer.Option(help="Bundle folder to make.")],
    target: Annotated[str, typer.Option(help="What to make it for.")] = "onnx-cpu",
    precision: Annotated[str, typer.Option(help="Number format of the weights.")] = "fp32",
    pictures: Annotated[
        Path | None, typer.Option(help="Photographs to check parity on; else scikit-image's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Convert a checkpoint into a bundle and prove that it says the same."""
    from transformers.utils import logging

    from export.convert import convert

    logging.disable_progress_bar()
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        tasks: dict[str, int] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(progress.task_ids[tasks[stage]], completed=done, total=total)

        bundle = convert(
            model,
            output,
            target,
            precision,
            pictures=pictures,
            overwrite=overwrite,
            advance=advance,
        )
    size = sum(facts.bytes for facts in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.manifest.family} for {target}, {precision}, {size:,} bytes")


@app.command()
def train(
    photos: Annotated[Path, typer.Option(help="Folder of photographs with a SOURCES.tsv.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on.")],
    minutes: Annotated[float, typer.Option(help="Time to train, all stages.", min=1)] = 120,
    preset: Annotated[str, typer.Option(help="Which model: nano or mini.")] = "nano",
    pictures: Annotated[int, typer.Option(help="Pictures to spoil for the pool.")] = 25_000,
    processes: Annotated[int, typer.Option(help="Processes to train with, a core each.")] = 2,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint to train further, such as checkpoints/nano.")
    ] = None,
    vida: Annotated[
        Path | None, typer.Option(help="Folder of ViDA-UGC's training files, to learn from too.")
    ] = None,
    texts: Annotated[
        list[Path] | None, typer.Option(help="More text for the tokenizer to learn words from.")
    ] = None,
) -> None:
    """Train a model of our own from photographs, into RUN/checkpoint."""
    from export.training.train import train

    typer.echo(train(preset, photos, run, minutes, pictures, processes, texts or [], start, vida))


@app.command()
def distill(
    teacher: Annotated[Path, typer.Option(help="Checkpoint folder of one of our presets.")],
    photos: Annotated[Path, typer.Option(help="Folder of photographs with a SOURCES.tsv.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on.")],
    student: Annotated[str, typer.Option(help="Which model learns: nano or mini.")] = "nano",
    minutes: Annotated[float, typer.Option(help="Time to train, all stages.", min=1)] = 120,
    pictures: Annotated[int, typer.Option(help="Pictures to spoil for the pool.")] = 25_000,
    processes: Annotated[int, typer.Option(help="Processes to train with, a core each.")] = 2,
) -> None:
    """Train a model of our own from photographs and from a teacher's logits and features."""
    from export.training.train import train

    typer.echo(train(student, photos, run, minutes, pictures, processes, [], teacher=teacher))


@app.command()
def label(
    photos: Annotated[list[str], typer.Argument(help="Pictures, folders or patterns.")],
    output: Annotated[Path, typer.Option(help="Folder to make, in ViDA-UGC's training form.")],
    bundle: Annotated[str | None, typer.Option(help="The teacher's bundle; else nano.")] = None,
) -> None:
    """Let a bundle of any size label pictures, for `train --vida` to learn from."""
    from export.supervision.label import label
    from idetex_edge.cli.options import open_assessor
    from idetex_edge.cli.stages import showing_stages

    with showing_stages() as advance:
        labelled, broken = label(open_assessor(bundle), photos, output, advance)
    typer.echo(f"{output}: {labelled} pictures labelled, {broken} could not be read")


@app.command()
def sheet(
    photos: Annotated[Path, typer.Option(help="Folder of photographs.")],
    output: Annotated[Path, typer.Option(help="Folder for the contact sheets.")],
    seed: Annotated[int, typer.Option(help="Which photographs and distortions.")] = 0,
) -> None:
    """Draw contact sheets: every cause at every severity, and composed pictures with boxes."""
    from export.distortions.sheet import write_sheets

    for path in write_sheets(photos, output, seed):
        typer.echo(path)


def main() -> None:
    """Run the command line; our own errors become one line and exit code 1."""
    try:
        app()
    except IdetexError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
