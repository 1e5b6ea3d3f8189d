"""A picture that the model has seen: its features, and the prompts already computed behind it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from idetex_edge.engines.protocol import Engine, Floats, KeepingEngine
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.errors import OutputError, RequestError

_VERSION: Final = 1
"""Of the files that `EncodedImage.save` writes."""

_UNREADABLE: Final = (
    *(OSError, EOFError, BadZipFile, NotImplementedError),
    *(ValueError, TypeError, LookupError, AttributeError),
)
"""What a damaged file, or a file of another kind, raises in zipfile, numpy and our reading."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A prefilled prompt in a file: keys and values as its engine gave them, and what follows."""

    data: npt.NDArray[np.floating[Any]]
    next_position: int


@dataclass(slots=True)
class EncodedImage:
    """One picture, encoded once; every task takes it in place of the picture.

    image: the picture as loaded, RGB. features: float32 [rows * columns, hidden]. rows, columns:
    its size in merged vision tokens. path: where it came from, if from a file. encode_ms: how long
    encoding took. made_by: the bundle (`Bundle.identity`) and the name of the engine that encoded
    it. engine: what can go on from here; None in one that was loaded, until an Assessor takes it.
    stems: prompts up to and with the picture, prefilled, by the words in front; kept: those that
    were loaded and not yet taken up.
    """

    image: Image.Image = field(repr=False)
    features: Floats = field(repr=False)
    rows: int
    columns: int
    path: str | None
    encode_ms: float
    made_by: tuple[str, str] = field(repr=False)
    engine: Engine | None = field(default=None, repr=False)
    stems: dict[str, Cached] = field(default_factory=dict[str, Cached], repr=False)
    kept: dict[str, Kept] = field(default_factory=dict[str, Kept], repr=False)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Keep the picture, its features, and the prompts prefilled so far, in a file.

        It appears whole or not at all. Raises OutputError when it cannot be written, and
        RequestError when the engine cannot give its keys and values away.
        """
        kept = dict(self.kept)
        if self.stems:
            kept |= {head: _keep(self.engine, stem) for head, stem in self.stems.items()}
        facts = {
            "version": _VERSION,
            "made_by": self.made_by,
            "rows": self.rows,
            "columns": self.columns,
            "path": self.path,
            "encode_ms": self.encode_ms,
            "stems": [[head, one.next_position] for head, one in kept.items()],
        }
        arrays: dict[str, Any] = {
            "facts": np.array(json.dumps(facts)),
            "image": np.asarray(self.image),
            "features": self.features,
            **{f"stem_{index}": one.data for index, one in enumerate(kept.values())},
        }
        path = Path(file)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as opened:
                np.savez(opened, **arrays)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error}; choose another place") from None

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> EncodedImage:
        """Take up what `save` kept: a task on it costs no vision, nor the prompts in the file.

        Only an Assessor of the same bundle and engine takes it. Raises RequestError when the file
        cannot be read, is damaged, or is of another version.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                facts = json.loads(str(arrays["facts"]))
                if facts["version"] != _VERSION:
                    raise RequestError(
                        f"{file} is an encoded picture of version {facts['version']}, this "
                        f"idetex-edge reads {_VERSION}; encode the picture again"
                    )
                heads: list[tuple[str, int]] = facts["stems"]
                return cls(
                    image=Image.fromarray(arrays["image"]),
                    features=arrays["features"],
                    rows=facts["rows"],
                    columns=facts["columns"],
                    path=facts["path"],
                    encode_ms=facts["encode_ms"],
                    made_by=(facts["made_by"][0], facts["made_by"][1]),
                    kept={
                        head: Kept(arrays[f"stem_{index}"], next_position)
                        for index, (head, next_position) in enumerate(heads)
                    },
                )
        except _UNREADABLE as error:
            raise RequestError(
                f"cannot read {file} as an encoded picture: {error}; encode the picture again"
            ) from None

    def take_up(self, engine: Engine) -> None:
        """Go on with what was loaded on `engine`; raises RequestError where it does not fit."""
        assert isinstance(engine, KeepingEngine), "what gave keys and values away takes them back"
        stems = {
            head: engine.restore(kept.data, kept.next_position) for head, kept in self.kept.items()
        }
        self.engine, self.stems, self.kept = engine, stems, {}


def _keep(engine: Engine | None, stem: Cached) -> Kept:
    if not isinstance(engine, KeepingEngine):
        raise RequestError("this engine cannot give its keys and values away; use onnx:cpu")
    return Kept(engine.keep(stem), stem.next_position)
