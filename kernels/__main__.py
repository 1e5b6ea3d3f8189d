"""`python -m kernels`: compile what a model needs and read it, for GPUs that need not be here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kernels.arches import SHARED_LIMITS
from kernels.build import BuildError, build, compile_variant, require_known
from kernels.configurations import MODELS, WEIGHTS, needed, shape_of
from kernels.machine_code import PACES, loops

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def kernels() -> None:
    """Triton kernels, compiled ahead of time."""


@app.command("build")
def build_command(
    output: Annotated[Path, typer.Option(help="Folder to write, one inside for each GPU.")],
    arch: Annotated[str, typer.Option(help="Architectures, separated by commas.")] = ",".join(
        SHARED_LIMITS
    ),
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle to build for; by default nano and Qwen2.5-VL-3B.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precisions of its matrices, separated by commas.")
    ] = ",".join(WEIGHTS),
    jobs: Annotated[int, typer.Option(min=1, help="Processes to compile in.")] = (
        os.cpu_count() or 1
    ),
) -> None:
    """Compile every kernel that a model needs to cubin and PTX, with an index."""
    precisions = precision.split(",")
    if unknown := [name for name in precisions if name not in WEIGHTS]:
        raise BuildError(f"unknown precision {unknown[0]!r}; known are {', '.join(WEIGHTS)}")
    shapes = list(MODELS.values())
    if bundle is not None:
        try:
            shapes = [shape_of(bundle / "manifest.json")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BuildError(f"cannot read {bundle}/manifest.json: {error}") from None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("compiling", total=None)

        def advance(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total)

        build(arch.split(","), shapes, precisions, output, jobs, advance)
    for name in arch.split(","):
        size = sum(path.stat().st_size for path in (output / name).glob("*.cubin"))
        print(f"{name}: {size / 2**20:.1f} MB of cubins in {output / name}")


@app.command("loops")
def loops_command(
    arch: Annotated[str, typer.Option(help="Architectures, separated by commas.")] = "sm_87,sm_90",
    match: Annotated[str, typer.Option(help="Part of the kernels' names; all if empty.")] = "int8",
) -> None:
    """Show what kernels' innermost loops take of a multiprocessor, read from machine code.

    Cycles of a turn: its instructions started, numbers converted, shared memory's accesses; and
    what the fastest memory needs for the bytes that the turn streams. No GPU is needed.
    """
    shapes, wanted = list(MODELS.values()), arch.split(",")
    require_known(wanted)
    table = Table(
        "kernel", "GPU", "instructions", "started", "converted", "shared", "bytes", *PACES
    )
    for variant in needed(shapes, WEIGHTS):
        for name in wanted if match in variant.name else ():
            for loop in loops(compile_variant(variant, name).cubin):
                warps, bytes_read = variant.warps, variant.streamed
                counts = (loop.issued(warps), loop.converted(warps), loop.shared(warps))
                table.add_row(
                    *(variant.name, name, str(loop.length)),
                    *(f"{count:.0f}" for count in counts),
                    str(bytes_read) if bytes_read else "",
                    *(f"{bytes_read / pace:.0f}" if bytes_read else "" for pace in PACES.values()),
                )
    Console().print(table)


def main() -> None:
    """Run on the command line's arguments; our own errors become one line and exit code 1."""
    try:
        app()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
