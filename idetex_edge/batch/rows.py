"""One picture as a row: what was found, or why nothing was."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from idetex_edge.assessor import Assessor
from idetex_edge.bundle import MANIFEST, file_facts
from idetex_edge.errors import IdetexError, ImageError
from idetex_edge.pictures import Found
from idetex_edge.results import Distortion

Row: TypeAlias = dict[str, Any]
"""Plain JSON under the names of `COLUMNS`."""

COLUMNS: Final = (
    *("path", "width", "height", "score", "mos", "level", "level_probabilities"),
    *("distortions", "key_distortions", "description", "model", "error"),
)
"""A row's columns in their order; all but `path`, `model` and `error` are None for a failure."""


def row_of(assessor: Assessor, picture: Found, place: str | None = None) -> Row:
    """Assess a picture, read from `place` if it is not where its path says; never raises for it."""
    row: Row = dict.fromkeys(COLUMNS)
    try:
        if picture.problem:
            raise ImageError(picture.problem)
        found = assessor.assess(place or picture.path).to_dict()
        # The same picture gives the same row.
        del found["timings"]
        row |= found
    except IdetexError as error:
        row |= {"model": assessor.model, "error": _storable(str(error))}
    return row | {"path": _storable(picture.path)}


def distortions_of(row: Row) -> list[Distortion]:
    """The distortions of a row, as they were."""
    return [
        Distortion(**(found | {name: tuple(found[name]) for name in ("box", "box_1000")}))
        for found in row["distortions"] or ()
    ]


def made_with(assessor: Assessor) -> dict[str, str]:
    """What rows depend on besides their pictures."""
    return {
        "model": assessor.model,
        "bundle": file_facts(assessor.bundle.path / MANIFEST).sha256,
        "engine": assessor.engine,
    }


def _storable(text: str) -> str:
    """Write out halves of characters, which file names may hold and UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()
