"""The workshop's command line: `python -m export COMMAND`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.command import convert
from idetex_edge.cli.script import errors_in_one_line

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def workshop() -> None:
    """Make, prove and inspect models for idetex-edge."""


Photos = Annotated[Path, typer.Option(help="Folder of photographs with a SOURCES.tsv.")]
Run = Annotated[Path, typer.Option(help="Folder of the run; the same one goes on.")]
Minutes = Annotated[float, typer.Option(help="Time to train, all stages.", min=1)]
Pictures = Annotated[int, typer.Option(help="Pictures to spoil for the pool.")]
Processes = Annotated[int, typer.Option(help="Processes to train with, a core each.", min=1)]
Vida = Annotated[
    Path | None, typer.Option(help="Folder of ViDA-UGC's training files, to learn from too.")
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="A part of the recipe to leave out (export/recipe.py)."),
]

# Commands import what they run inside themselves: torch alone takes seconds.


app.command()(convert)


@app.command()
def train(
    photos: Photos,
    run: Run,
    minutes: Minutes = 120,
    preset: Annotated[str, typer.Option(help="Which model: nano or mini.")] = "nano",
    pictures: Pictures = 25_000,
    processes: Processes = 2,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint to train further, such as checkpoints/nano.")
    ] = None,
    vida: Vida = None,
    texts: Annotated[
        list[Path] | None, typer.Option(help="More text for the tokenizer to learn words from.")
    ] = None,
    without: Without = None,
) -> None:
    """Train a model of our own from photographs, into RUN/checkpoint."""
    from export.recipe import recipe_without
    from export.training.train import train

    recipe = recipe_without(without or ())
    common = (preset, photos, run, minutes, pictures, processes)
    typer.echo(train(*common, texts or [], start, vida, recipe=recipe))


@app.command()
def ablate(
    photos: Photos,
    pool: Annotated[Path, typer.Option(help="Pool of spoiled pictures, such as RUN/pool.")],
    run: Annotated[Path, typer.Option(help="Folder for the variants; the same one goes on.")],
    minutes: Annotated[
        float, typer.Option(help="A core's time to train each variant.", min=0.01)
    ] = 10,
    part: Annotated[
        list[str] | None, typer.Option(help="A part to leave out; all of the stage if not given.")
    ] = None,
    stage: Annotated[str, typer.Option(help="vision, reading or language.")] = "reading",
    trained: Annotated[
        bool, typer.Option(help="Begin with the model's weights instead of fresh ones.")
    ] = False,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Checkpoint of one of our presets that teaches."),
    ] = None,
    vida: Vida = None,
    model: Annotated[
        Path, typer.Option(help="Checkpoint folder of ours: its tokenizer and prompts are used.")
    ] = Path("checkpoints/nano"),
    preset: Annotated[str, typer.Option(help="Which model: nano or mini.")] = "nano",
    processes: Annotated[
        int, typer.Option(help="Variants to train side by side, a core each.", min=1)
    ] = 2,
) -> None:
    """Train one stage with the whole recipe and without each part, and say what that costs."""
    from export.training.ablation import ablate, markdown
    from idetex_edge.cli.stages import showing_stages

    with showing_stages() as advance:
        common = (photos, pool, run, minutes, part or (), trained, teacher, vida, processes)
        found = ablate(stage, preset, model, *common, advance)
    typer.echo(markdown(found))


@app.command()
def distill(
    teacher: Annotated[Path, typer.Option(help="Checkpoint folder of one of our presets.")],
    photos: Photos,
    run: Run,
    student: Annotated[str, typer.Option(help="Which model learns: nano or mini.")] = "nano",
    minutes: Minutes = 120,
    pictures: Pictures = 25_000,
    processes: Processes = 2,
    vida: Vida = None,
    without: Without = None,
) -> None:
    """Train a model of our own from photographs and from a teacher of the same vocabulary."""
    from export.recipe import recipe_without
    from export.training.train import train

    recipe = recipe_without(without or ())
    common = (student, photos, run, minutes, pictures, processes)
    typer.echo(train(*common, [], vida=vida, teacher=teacher, recipe=recipe))


@app.command()
def average(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint folders, two or more.")],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to make.")],
    language: Annotated[
        str | None, typer.Option(help="Shares in the language model, such as 0.6,0.4.")
    ] = None,
    vision: Annotated[
        str | None, typer.Option(help="Shares in the vision tower; else the language model's.")
    ] = None,
) -> None:
    """Average checkpoints that were trained on from the same weights; in equal parts by default."""
    from export.averaging import Shares, average
    from idetex_edge.cli.stages import showing_stages

    shares = Shares.parse(len(checkpoints), language, vision)
    with showing_stages() as advance:
        average(checkpoints, shares, output, advance)
    typer.echo(output)


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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; our own errors become one line and exit code 1."""
    with errors_in_one_line():
        app(arguments)


if __name__ == "__main__":
    main()
