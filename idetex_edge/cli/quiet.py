"""How the command ends: errors in one line, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from io import TextIOWrapper
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from idetex_edge.errors import IdetexError, RequestError


class QuietCommands(TyperGroup):
    """Commands whose IdetexErrors become `error: ...` and exit code 1, or 2 for a RequestError.

    Warnings become `warning: ...`; Ctrl-C ends with 130 and without a word.
    """

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - its types are private to typer
        """Run the command that was asked for."""
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                try:
                    return super().invoke(ctx)
                finally:
                    # Now, while a closed pipe can be handled, and not when Python ends.
                    sys.stdout.flush()
            except IdetexError as error:
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(2 if isinstance(error, RequestError) else 1) from None
            except OSError as error:
                # Typer ends without a word where the reader of a pipe has gone.
                if error.errno != errno.EPIPE:
                    print(f"error: cannot write the results: {error.strerror}", file=sys.stderr)
                    # What could not be written would be tried again when Python ends.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    raise typer.Exit(1) from None
                raise
            except KeyboardInterrupt:
                raise typer.Exit(130) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)
