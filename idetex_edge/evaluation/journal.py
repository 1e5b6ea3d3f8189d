"""What an interrupted evaluation had done: one line of JSON for each finished picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from idetex_edge.errors import OutputError

Result: TypeAlias = dict[str, Any]
"""A JSON object."""


class Journal:
    """Results by name, kept on disk from the moment they are added.

    A line that a kill cut short is dropped and its picture done again.
    """

    def __init__(self, path: Path, made_with: Mapping[str, str]) -> None:
        """Open a journal or begin one.

        made_with: what the results depend on, such as hashes. Raises OutputError when the journal
        was begun with anything else, or cannot be read or written.
        """
        self._path = path
        first = {"made_with": dict(made_with)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._file.seek(0)
            whole, _, _ = self._file.read().rpartition(b"\n")
            lines = [json.loads(line) for line in whole.splitlines()]
            self._file.truncate(len(whole) + 1 if whole else 0)
            if not lines:
                self._write(first)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot use {path}: {error}; delete it or change --output") from None
        if lines and lines[0] != first:
            self._file.close()
            raise OutputError(
                f"{path} was begun with another bundle, engine or benchmark; "
                "delete it or give another --output"
            )
        self._results: dict[str, Result] = {line["name"]: line["result"] for line in lines[1:]}

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def __getitem__(self, name: str) -> Result:
        return self._results[name]

    def add(self, name: str, result: Result) -> None:
        """Keep a result; raises OutputError when the disk refuses it."""
        try:
            self._write({"name": name, "result": result})
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error}; free some space") from None
        self._results[name] = result

    def _write(self, line: Result) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
