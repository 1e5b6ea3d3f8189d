"""The bundle: the folder that export writes and an engine runs, described by `manifest.json`.

Everything the runtime knows about a model is read from the manifest; nothing is guessed from file
names. Sizes of all files are checked each time a bundle is opened, hashes of those up to
`HASHED_ON_OPEN` bytes as well; `verify` hashes every file whatever its size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from idetex_edge.errors import BundleError, OutputError
from idetex_edge.facts import read_facts
from idetex_edge.preprocess import Preprocessor
from idetex_edge.prompts import PromptSet

MANIFEST: Final = "manifest.json"
TOKENIZER: Final = "tokenizer.json"
SCHEMA_VERSION: Final = 1
HASHED_ON_OPEN: Final = 64 * 2**20
"""Files up to this many bytes are hashed by `open_bundle`; longer ones only by `verify`."""


@dataclass(frozen=True, slots=True)
class TextFacts:
    """Shape of the language model. `mrope_section` counts rotary frequencies per axis (t, h, w)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_context: int
    rope_theta: float
    mrope_section: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VisionFacts:
    """Shape of the vision encoder. `window` is in pixels, 0 where every block sees all patches."""

    hidden: int
    layers: int
    heads: int
    head_dim: int
    channels: int
    patch: int
    temporal: int
    merge: int
    window: int
    full_blocks: tuple[int, ...]
    rope_theta: float


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """The token embedding table: a raw row-major [vocab, hidden] array, little-endian."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """The KV cache that the decoder graph takes: "float32" or "float16".

    slots: the only length that it accepts, 0 where any will do.
    """

    dtype: str = "float32"
    slots: int = 0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Size in bytes and SHA-256 (hexadecimal) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of `manifest.json`, schema version 1.

    `tokens` maps each special token to its id; `stop` lists the ids that end an answer; `graphs`
    maps "vision" and "decoder" to file names, `engines` the same to what was built from them for
    this machine, if anything was; `drafts` names what answers mostly say (`idetex_edge.drafting`),
    if anything does. Bundles without `cache`, `engines` or `drafts` were made before there were
    any.
    """

    name: str
    family: str
    target: str
    precision: str
    text: TextFacts
    vision: VisionFacts
    preprocessor: Preprocessor
    prompts: PromptSet
    tokens: dict[str, int]
    stop: tuple[int, ...]
    graphs: dict[str, str]
    embedding: EmbeddingFacts
    files: dict[str, FileFacts]
    cache: CacheFacts = CacheFacts()
    engines: dict[str, str] = field(default_factory=dict[str, str])
    drafts: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, `schema_version` first."""
        own_forms = {
            "preprocessor": self.preprocessor.to_dict(),
            "prompts": self.prompts.to_dict(),
        }
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self), **own_forms}

    @classmethod
    def from_dict(cls, data: object) -> Manifest:
        """Read the JSON form; raises BundleError on an unknown version or any field out of form."""
        if not isinstance(data, dict):
            raise BundleError(f"{MANIFEST} does not hold a JSON object; export the bundle again")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{MANIFEST} has schema version {version!r}, this idetex-edge reads "
                f"{SCHEMA_VERSION}; export the bundle again or upgrade idetex-edge"
            )
        rest = {name: value for name, value in data.items() if name != "schema_version"}
        return read_facts(cls, rest, "manifest")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Where a file that the manifest lists lies."""
        return self.path / name

    @property
    def identity(self) -> str:
        """What tells it from every other bundle: a SHA-256 over its manifest and so its files."""
        return hashlib.sha256(json.dumps(self.manifest.to_dict()).encode()).hexdigest()


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open and check a bundle folder.

    Raises BundleError when the manifest is missing, malformed or of an unknown version, when it
    names a file outside the folder, or when a listed file is missing or altered.
    """
    folder = Path(path)
    bundle = Bundle(folder, load_manifest(folder))
    for name, facts in bundle.manifest.files.items():
        _check_size(bundle.file(name), name, facts)
        if facts.bytes <= HASHED_ON_OPEN:
            _check_hash(bundle.file(name), name, facts)
    return bundle


def verify(bundle: Bundle) -> None:
    """Hash every file of the bundle, however long; raises BundleError at the first that differs."""
    for name, facts in bundle.manifest.files.items():
        _check_size(bundle.file(name), name, facts)
        _check_hash(bundle.file(name), name, facts)


def add_files(bundle: Bundle, contents: Mapping[str, bytes | Path]) -> Bundle:
    """Put files into a bundle's folder and its manifest; raises OutputError when it cannot.

    A path is a file beside the bundle's own (`part_of`), which is moved to its name. A run that is
    killed at any moment leaves a bundle that opens: everything is written beside what is there,
    then the manifest lets go of what will be replaced, then files take their places, and the
    manifest lists them last. Graphs, tokenizer and embedding are not replaced so.
    """
    manifest, folder = bundle.manifest, bundle.path
    parts: dict[str, Path] = {}
    try:
        on_disk = load_manifest(folder)
        for name, data in contents.items():
            parts[name] = data if isinstance(data, Path) else part_of(bundle.file(name))
            if not isinstance(data, Path):
                parts[name].write_bytes(data)
        added = {name: file_facts(part) for name, part in parts.items()}
        if set(contents) & set(on_disk.files):
            _write_manifest(folder, _without(on_disk, set(contents)))
        for name, part in parts.items():
            part.replace(bundle.file(name))
        _write_manifest(folder, dataclasses.replace(manifest, files=manifest.files | added))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error}; make it writable") from None
    finally:
        for part in (*parts.values(), part_of(folder / MANIFEST)):
            part.unlink(missing_ok=True)
    return open_bundle(folder)


def part_of(path: Path) -> Path:
    """Where a file of the bundle is written until it is whole."""
    return path.with_name(f".{path.name}.part")


def load_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` of a bundle folder and check it by itself; raises BundleError."""
    path = folder / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}; export the bundle again") from None
    manifest = Manifest.from_dict(data)
    for name in manifest.files:
        _check_name(name)
    needed = {
        *(*manifest.graphs.values(), *manifest.engines.values()),
        *(manifest.embedding.file, TOKENIZER),
        *((manifest.drafts,) if manifest.drafts else ()),
    }
    if unlisted := sorted(needed - set(manifest.files)):
        raise BundleError(f"{path} does not list {unlisted[0]}, which the model needs")
    if missing := {"vision", "decoder"} - set(manifest.graphs):
        raise BundleError(f"{path} names no {min(missing)} graph; export the bundle again")
    return manifest


def file_facts(path: Path) -> FileFacts:
    """Size and hash of a file as it lies on disk."""
    return FileFacts(path.stat().st_size, _sha256(path))


def _without(manifest: Manifest, names: set[str]) -> Manifest:
    """Give the manifest of a bundle that lacks some files, and what they are to it."""
    files = {name: facts for name, facts in manifest.files.items() if name not in names}
    engines = {name: file for name, file in manifest.engines.items() if file not in names}
    drafts = "" if manifest.drafts in names else manifest.drafts
    return dataclasses.replace(manifest, files=files, engines=engines, drafts=drafts)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n"
    part = part_of(folder / MANIFEST)
    part.write_text(text, encoding="utf-8")
    part.replace(folder / MANIFEST)


def _check_name(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0"):
        raise BundleError(
            f"{MANIFEST} lists {name!r}, which lies outside the bundle; do not use it"
        )


def _check_size(path: Path, name: str, facts: FileFacts) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise BundleError(
            f"the bundle's file {name} is missing from {path.parent}; copy the bundle again"
        ) from None
    if size != facts.bytes:
        raise BundleError(
            f"the bundle's file {name} has {size} bytes instead of {facts.bytes}; "
            "copy the bundle again"
        )


def _check_hash(path: Path, name: str, facts: FileFacts) -> None:
    if _sha256(path) != facts.sha256:
        raise BundleError(f"the bundle's file {name} was altered (SHA-256); copy the bundle again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise BundleError(f"cannot read the bundle's file {path}: {error}") from None
    return digest.hexdigest()
