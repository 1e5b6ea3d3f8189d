"""What interrupted work had done: one line of JSON for each finished picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from idetex_edge.errors import OutputError

Result: TypeAlias = dict[str, Any]
"""A JSON object."""


class Journal:
    """Results by name, kept on disk from the moment they are added, and only there.

    A line that a kill cut short is dropped and its picture done again.
    """

    def __init__(self, path: Path, made_with: Mapping[str, str]) -> None:
        """Open a journal or begin one.

        made_with: what the results depend on, such as hashes. Raises OutputError when the journal
        was begun with anything else, or cannot be read or written.
        """
        self._path = path
        first = {"made_with": dict(made_with)}
        self._places: dict[str, int] = {}
        """Where in the file each result's line begins."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            begun_with = self._read()
            if begun_with is None:
                self._write(first)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot use {path}: {error}; delete it or change --output") from None
        if begun_with not in (None, first):
            self._file.close()
            raise OutputError(
                f"{path} was begun with another bundle, engine or benchmark; "
                "delete it or give another --output"
            )

    def _read(self) -> Result | None:
        """Note all whole lines, drop what follows them, and return the first."""
        self._file.seek(0)
        first, place = None, 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(place)
                break
            read: Result = json.loads(line)
            if place == 0:
                first = read
            else:
                self._places[read["name"]] = place
            place += len(line)
        return first

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
        return name in self._places

    def __getitem__(self, name: str) -> Result:
        self._file.seek(self._places[name])
        return json.loads(self._file.readline())["result"]

    def add(self, name: str, result: Result) -> None:
        """Keep a result; raises OutputError when the disk refuses it."""
        try:
            self._places[name] = self._write({"name": name, "result": result})
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error}; free some space") from None

    def _write(self, line: Result) -> int:
        """Append a line; returns where it begins."""
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        return place
