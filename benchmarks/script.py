"""How every benchmark runs as a script."""

import sys
from collections.abc import Callable

import typer

from idetex_edge.errors import IdetexError


def run(benchmark: Callable[..., None]) -> None:
    """Run on the command line's arguments; our own errors become one line and exit code 1."""
    try:
        typer.run(benchmark)
    except IdetexError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
