"""How scripts beside `idetex-edge` end: our own errors in one line, and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer

from idetex_edge.errors import IdetexError


@contextmanager
def errors_in_one_line() -> Generator[None, None, None]:
    """Turn an IdetexError into `error: ...` on stderr and exit code 1."""
    try:
        yield
    except IdetexError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def run(script: Callable[..., None]) -> None:
    """Run a function on the command line's arguments, its parameters being typer's options."""
    with errors_in_one_line():
        typer.run(script)
