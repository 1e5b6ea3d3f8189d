"""Run a task over pictures: results to stdout, errors and progress to stderr, an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from idetex_edge.errors import IdetexError, ImageError
from idetex_edge.pictures import Found


@dataclass(frozen=True, slots=True)
class Result:
    """What came out for one picture.

    data: for programs. view: for people. pieces: text that people see behind it, as it comes.
    """

    data: Mapping[str, Any]
    view: RenderableType
    pieces: Iterable[str] = ()


def print_each(pictures: Sequence[Found], as_json: bool, judge: Callable[[Found], Result]) -> None:
    """Judge and print each picture, then raise typer.Exit with 1 if any failed, else 0.

    A picture that fails with an IdetexError gives a line on stderr. In JSON mode each picture
    gives a line on stdout: `{"path": ..., ...}`, or `{"path": ..., "error": ...}`.
    """
    failed = False
    bar = _progress(len(pictures))
    with bar:
        task = bar.add_task("", total=len(pictures))
        for picture in pictures:
            bar.update(task, description=picture.name.name)
            try:
                if picture.problem:
                    raise ImageError(picture.problem)
                result = judge(picture)
                # The bar leaves the terminal while something else is printed there.
                bar.stop()
                _show(picture, result, as_json)
            except IdetexError as error:
                failed = True
                bar.stop()
                if as_json:
                    print_json({"path": picture.path, "error": str(error)})
                print(f"error: {error}", file=sys.stderr, flush=True)
            bar.advance(task)
            bar.start()
    raise typer.Exit(int(failed))


def print_json(row: Mapping[str, Any]) -> None:
    """Print a line of JSON in ASCII: file names may hold what an encoding cannot."""
    print(json.dumps(row, allow_nan=False), flush=True)


def print_view(view: RenderableType) -> None:
    """Print something for people, no wider than the terminal."""
    Console(highlight=False, markup=False, emoji=False).print(view)


def _show(picture: Found, result: Result, as_json: bool) -> None:
    if as_json:
        print_json({"path": picture.path, **result.data})
        return
    print_view(result.view)
    ending = ""
    for piece in result.pieces:
        print(piece, end="", flush=True)
        ending = "\n\n"
    print(end=ending)


def _progress(count: int) -> Progress:
    """A progress bar, shown where there are several pictures and a person watches."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=count < 2 or not console.is_terminal,
    )
