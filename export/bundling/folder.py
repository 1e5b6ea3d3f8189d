"""The hidden folder in which a bundle grows, and what survives of it when a run is killed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idetex_edge.bundle import MANIFEST
from idetex_edge.errors import ExportError

_JOURNAL: Final = ".finished.json"


@dataclass(frozen=True, slots=True)
class Growing:
    """A bundle in the making: its folder, and a journal of the stages that are finished."""

    path: Path
    identity: str

    def once(self, stage: str, work: Callable[[], None]) -> None:
        """Do a stage unless an earlier run of the same conversion has finished it here."""
        finished = self._finished()
        if stage in finished:
            return
        work()
        data = {"identity": self.identity, "finished": [*finished, stage]}
        (self.path / _JOURNAL).write_text(json.dumps(data), encoding="utf-8")

    def finish(self) -> None:
        """Take the journal away: the bundle is whole."""
        (self.path / _JOURNAL).unlink(missing_ok=True)

    def open(self) -> None:
        """Take up what lies here of the same conversion; of another one, start afresh."""
        if self.path.exists() and not self._finished():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def _finished(self) -> list[str]:
        try:
            data = json.loads((self.path / _JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return list(data["finished"]) if data["identity"] == self.identity else []


@contextmanager
def growing(output: Path, overwrite: bool, identity: str) -> Generator[Growing]:
    """Lend a folder that replaces `output` at the end, or vanishes on an error.

    identity: what tells one conversion from another. A run that is killed leaves its folder for the
    next one to take up. Raises ExportError when `output` exists and may not be replaced, and for
    what the system refuses, such as a full disk.
    """
    replaceable = (output / MANIFEST).is_file() or (output.is_dir() and not any(output.iterdir()))
    if output.exists() and not (overwrite and replaceable):
        hint = "pass --overwrite or" if replaceable else "it is not a bundle, so"
        raise ExportError(f"{output} exists; {hint} give another --output")
    output = output.absolute()
    digest = hashlib.sha256(identity.encode()).hexdigest()
    folder = Growing(output.with_name(f".{output.name}.growing"), digest)
    try:
        folder.open()
        yield folder
        if output.exists():
            shutil.rmtree(output)
        folder.path.replace(output)
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise ExportError(f"cannot make {output}: {error}; free space or check rights") from None
    except Exception:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
