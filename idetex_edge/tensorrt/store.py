"""Engines built on this machine, kept for the next process: found by what they were built of.

An entry is `KEY.engine` and `KEY.json`, written last, with its SHA-256: TensorRT runs what it
deserialises, so nothing is read whose hash is not the manifest's or the entry's.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from idetex_edge.bundle import Bundle, FileFacts
from idetex_edge.errors import BundleError, OutputError
from idetex_edge.tensorrt.build import build_engine
from idetex_edge.tensorrt.place import PLACE, user_cache
from idetex_edge.tensorrt.recipe import BuildRecipe
from idetex_edge.whole import whole_file

LIMIT: Final = 8 * 2**30
"""Bytes of engines that are kept; those longest unused go first."""

_IN_USE: Final = 3600.0
"""Seconds for which what was used stays, whatever the limit: a bundle's engines must not drop each
other, however large they are."""

_ALL: Final = "all"
"""The lock of whoever adds or drops entries; each key's own is of whoever builds it."""


@dataclass(frozen=True, slots=True)
class EngineStore:
    """A folder of engines, `limit` bytes of them at most. Safe for several processes at once."""

    folder: Path
    limit: int = LIMIT

    @classmethod
    def of_user(cls) -> EngineStore:
        """In the folder IDETEX_CACHE names, else in the user's own place for caches."""
        return cls(user_cache() / "engines")

    def engine(
        self,
        bundle: Bundle,
        recipe: BuildRecipe,
        name: str,
        trt: Any,  # noqa: ANN401 (an untyped module)
        device: str,
    ) -> bytes:
        """One of a bundle's engines for a device of that name: the bundle's own, or one from here.

        What is not here yet is built, which takes minutes; a second process that asks for it
        meanwhile waits. What cannot be kept is warned of. Raises BundleError when the bundle's
        engine was altered, EngineError when one cannot be built.
        """
        own = bundle.manifest.engines.get(name)
        if own is not None:
            data = bundle.file(own).read_bytes()
            if _sha256(data) != bundle.manifest.files[own].sha256:
                raise BundleError(f"the bundle's file {own} was altered; copy the bundle again")
            return data
        key = _key(bundle, recipe, name, trt, device)
        return self.get(key, lambda: build_engine(trt, bundle, name, recipe.engines[name])[0])

    def get(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The entry of that key, built and kept where there is none; see `engine`."""
        with ExitStack() as held:
            try:
                held.enter_context(self._lock(key))
                data = self._read(key)
            except OSError as error:
                self._warn(error)
                return build()
            if data is None:
                data = build()
                self.put(key, data)
            return data

    def find(self, key: str) -> bytes | None:
        """The entry of that key, or None; one that was altered is none, with a warning."""
        try:
            return self._read(key)
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry, whatever was there; warns when it cannot."""
        facts = {"bytes": len(data), "sha256": _sha256(data)}
        try:
            # One at a time: what one process counts another must not be removing.
            with self._lock(_ALL):
                self._make_room(len(data))
                for name, content in (
                    (f"{key}.engine", data),
                    (f"{key}.json", json.dumps(facts).encode()),
                ):
                    with whole_file(self.folder / name) as part:
                        part.write_bytes(content)
        except (OSError, OutputError) as error:
            self._warn(error)

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

    def _read(self, key: str) -> bytes | None:
        facts, path = self.folder / f"{key}.json", self.folder / f"{key}.engine"
        if not (facts.is_file() and path.is_file()):
            return None
        try:
            told = FileFacts(**json.loads(facts.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return None
        data = path.read_bytes()
        if _sha256(data) != told.sha256:
            warnings.warn(
                f"{path} was altered since it was made; it is made again",
                RuntimeWarning,
                stacklevel=3,
            )
            return None
        path.touch()
        return data

    def _make_room(self, size: int) -> None:
        """Drop entries, and what a killed process left of one, the longest unused first."""
        entries = [(path, path.stat()) for path in self.folder.glob("*.engine")]
        entries.sort(key=lambda entry: entry[1].st_mtime)
        held = size + sum(facts.st_size for _, facts in entries)
        for path, facts in entries:
            if held <= self.limit or time.time() - facts.st_mtime < _IN_USE:
                break
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()
            held -= facts.st_size


def _key(bundle: Bundle, recipe: BuildRecipe, name: str, trt: Any, device: str) -> str:  # noqa: ANN401
    """What an engine depends on: graph, shapes, precision, builder and its version, device."""
    engine = recipe.engines[name]
    files = bundle.manifest.files
    told = {
        "graph": {file: files[file].sha256 for file in files if file.startswith(engine.graph)},
        "profiles": recipe.to_dict()["engines"][name]["profiles"],
        "precision": bundle.manifest.precision,
        "builder": [trt.__name__, trt.__version__],
        "device": device,
    }
    return _sha256(json.dumps(told, sort_keys=True).encode())[:32]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
