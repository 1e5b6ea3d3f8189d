"""Engines built on this machine, kept for the next process: found by what they were built of.

An entry is `KEY.engine` and `KEY.json`, written last, with its SHA-256: TensorRT runs what it
deserialises, so nothing is read whose hash is not the manifest's or the entry's.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from idetex_edge.bundle import Bundle, FileFacts
from idetex_edge.errors import BundleError, OutputError
from idetex_edge.tensorrt.build import build_engine
from idetex_edge.tensorrt.recipe import BuildRecipe

LIMIT: Final = 8 * 2**30
"""Bytes of engines that are kept; those longest unused go first."""

_PLACE: Final = "IDETEX_CACHE"


@dataclass(frozen=True, slots=True)
class EngineStore:
    """A folder of engines, `limit` bytes of them at most. Safe for several processes at once."""

    folder: Path
    limit: int = LIMIT

    @classmethod
    def of_user(cls) -> EngineStore:
        """In the folder IDETEX_CACHE names, else in the user's own place for caches."""
        place = os.environ.get(_PLACE)
        if place is None:
            home = Path.home()
            base = {
                "win32": Path(os.environ.get("LOCALAPPDATA", home)),
                "darwin": home / "Library" / "Caches",
            }.get(sys.platform, Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")))
            place = base / "idetex-edge"
        return cls(Path(place) / "engines")

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
        meanwhile waits. Raises BundleError when the bundle's engine was altered, EngineError when
        one cannot be built, OutputError when it cannot be kept.
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
        with self._locked(key):
            data = self._read(key)
            if data is None:
                data = build()
                self._write(key, data)
            return data

    def find(self, key: str) -> bytes | None:
        """The entry of that key, or None; one that was altered is none, with a warning."""
        with self._locked(key):
            return self._read(key)

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry, whatever was there; raises OutputError when it cannot."""
        with self._locked(key):
            self._write(key, data)

    @contextmanager
    def _locked(self, key: str) -> Generator[None, None, None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{key}.lock"):
                yield
        except OSError as error:
            raise OutputError(
                f"cannot keep engines in {self.folder}: {error}; make room, or set {_PLACE}"
            ) from None

    def _read(self, key: str) -> bytes | None:
        facts, path = self.folder / f"{key}.json", self.folder / f"{key}.engine"
        try:
            told = FileFacts(**json.loads(facts.read_text(encoding="utf-8")))
            data = path.read_bytes()
        except (OSError, ValueError, TypeError):
            return None
        if _sha256(data) != told.sha256:
            warnings.warn(
                f"{path} was altered since it was made; it is made again",
                RuntimeWarning,
                stacklevel=3,
            )
            return None
        facts.touch()
        return data

    def _write(self, key: str, data: bytes) -> None:
        self._make_room(len(data), key)
        facts = {"bytes": len(data), "sha256": _sha256(data)}
        for name, content in (
            (f"{key}.engine", data),
            (f"{key}.json", json.dumps(facts).encode()),
        ):
            part = self.folder / f".{name}.part"
            part.write_bytes(content)
            part.replace(self.folder / name)

    def _make_room(self, size: int, key: str) -> None:
        entries = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        held = {path: path.with_suffix(".engine").stat().st_size for path in entries}
        for path in entries:
            if sum(held.values()) + size <= self.limit:
                break
            if path.stem != key:
                path.unlink(missing_ok=True)
                path.with_suffix(".engine").unlink(missing_ok=True)
            del held[path]


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
