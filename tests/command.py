"""Run the command `idetex-edge` inside the test, and check how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from idetex_edge.cli import app


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was printed as JSON lines; fails when anything else was."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The one line of the one error."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


def run(*arguments: str | Path, bundle: Path | None = None) -> Ran:
    """Run `idetex-edge ARGUMENTS`; the bundle is put behind them."""
    words = [str(argument) for argument in arguments]
    if bundle is not None:
        words += ["--bundle", str(bundle)]
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return Ran(result.exit_code, result.stdout, result.stderr)
