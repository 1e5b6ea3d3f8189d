"""Engines built on this machine, kept for the next process: found by what they were built of.

An entry is `KEY.engine` and `KEY.json`, written last, with its SHA-256: TensorRT runs what it
deserialises, so nothing is read whose hash is not the manifest's or the entry's.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from filelock import FileLock

from idetex_edge.bundle import FileFacts, file_facts
from idetex_edge.errors import OutputError
from idetex_edge.tensorrt.place import PLACE, user_cache
from idetex_edge.whole import whole_file

LIMIT: Final = 8 * 2**30
"""Bytes of engines that are kept; those longest unused go first."""

_IN_USE: Final = 3600.0
"""Seconds for which what was used stays, whatever the limit: a bundle's engines must not drop each
other, however large they are."""

_ALL: Final = "all"
"""The lock of whoever adds or drops entries; each key's own is of whoever builds it."""


Build = Callable[[Path], object]
"""Writes an engine into a file."""


@dataclass(frozen=True, slots=True)
class EngineStore:
    """A folder of engines, `limit` bytes of them at most. Safe for several processes at once."""

    folder: Path
    limit: int = LIMIT

    @classmethod
    def of_user(cls) -> EngineStore:
        """In the folder IDETEX_CACHE names, else in the user's own place for caches."""
        return cls(user_cache() / "engines")

    def get(self, key: str, build: Build) -> memoryview:
        """The entry of that key, mapped from its file; built and kept where there is none.

        Building takes minutes; a second process that asks for the same meanwhile waits. What cannot
        be kept is warned of. Raises whatever `build` raises.
        """
        with ExitStack() as held:
            try:
                held.enter_context(self._lock(key))
                data = self._read(key)
            except OSError as error:
                self._warn(error)
                with TemporaryDirectory() as folder:
                    build(Path(folder) / "engine")
                    return memoryview((Path(folder) / "engine").read_bytes())
            if data is not None:
                return data
            part = self.folder / f"{key}.building"
            try:
                build(part)
                try:
                    return mapped(self._adopt(key, part))
                except (OSError, OutputError) as error:
                    self._warn(error)
                    return memoryview(part.read_bytes())
            finally:
                part.unlink(missing_ok=True)

    def find(self, key: str) -> bytes | None:
        """The entry of that key, or None; one that was altered is none, with a warning."""
        try:
            data = self._read(key)
        except OSError:
            return None
        return None if data is None else bytes(data)

    def holds(self, key: str) -> bool:
        """Whether there is an entry of that key, altered or not."""
        return (self.folder / f"{key}.json").is_file()

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry, whatever was there; warns when it cannot."""
        part = self.folder / f"{key}.building"
        try:
            with self._lock(key):
                part.write_bytes(data)
                self._adopt(key, part)
        except (OSError, OutputError) as error:
            self._warn(error)

    def _adopt(self, key: str, part: Path) -> Path:
        """Let a file of the folder be the entry of that key; where it lies then."""
        facts, path = file_facts(part), self.folder / f"{key}.engine"
        # One at a time: what one process counts another must not be removing.
        with self._lock(_ALL):
            self._make_room(facts.bytes, part)
            path.with_suffix(".json").unlink(missing_ok=True)
            part.replace(path)
            with whole_file(path.with_suffix(".json")) as written:
                written.write_text(json.dumps(asdict(facts)), encoding="utf-8")
        return path

    def _lock(self, name: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{name}.lock")

    def _warn(self, error: OSError | OutputError) -> None:
        warnings.warn(
            f"cannot keep engines in {self.folder}, so they are built again next time: {error}; "
            f"make room, or set {PLACE}",
            RuntimeWarning,
            stacklevel=3,
        )

    def _read(self, key: str) -> memoryview | None:
        facts, path = self.folder / f"{key}.json", self.folder / f"{key}.engine"
        if not (facts.is_file() and path.is_file()):
            return None
        try:
            told = FileFacts(**json.loads(facts.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None
        data = mapped(path)
        if sha256(data) != told.sha256:
            warnings.warn(
                f"{path} was altered since it was made; it is made again",
                RuntimeWarning,
                stacklevel=3,
            )
            return None
        path.touch()
        return data

    def _make_room(self, size: int, part: Path) -> None:
        """Drop entries, and what killed processes left of some, the longest unused first."""
        entries: list[tuple[Path, os.stat_result]] = []
        for path in (*self.folder.glob("*.engine"), *self.folder.glob("*.building")):
            # Another process may give up what it was building.
            with suppress(FileNotFoundError):
                entries += [(path, path.stat())] if path != part else []
        entries.sort(key=lambda entry: entry[1].st_mtime)
        held = size + sum(facts.st_size for _, facts in entries)
        for path, facts in entries:
            if held <= self.limit or time.time() - facts.st_mtime < _IN_USE:
                break
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            held -= facts.st_size


def mapped(path: Path) -> memoryview:
    """A file's bytes without a copy of them: an engine may be as large as what memory is free."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
