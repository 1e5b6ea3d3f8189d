"""How a bundle's engines are built: `build.json`, written by export and followed on the device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from idetex_edge.bundle import Bundle
from idetex_edge.errors import BundleError

BUILD: Final = "build.json"

PREFILL, DECODING = 0, 1
"""The decoder engine's profiles: one sequence, many tokens; several sequences, a token each."""

Profile = Mapping[str, tuple[tuple[int, ...], ...]]
"""For each input, its smallest, usual and largest shape."""


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """One engine: the graph it is built of, its file, and the shapes that it is built for."""

    graph: str
    file: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """All engines of a bundle.

    spelled_out: attention that has no dedicated kernel and is built of smaller operators instead,
    and why.
    """

    engines: Mapping[str, EngineRecipe]
    spelled_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(self)


def load_recipe(bundle: Bundle) -> BuildRecipe:
    """Read a bundle's `build.json`; raises BundleError when it has none or it is malformed."""
    if BUILD not in bundle.manifest.files:
        raise BundleError(
            f"{bundle.path} is for {bundle.manifest.target}, which needs no engines; it runs as it "
            "is"
        )
    try:
        data = json.loads(bundle.file(BUILD).read_text(encoding="utf-8"))
        engines = {
            name: EngineRecipe(
                graph=str(engine["graph"]),
                file=str(engine["file"]),
                profiles=tuple(
                    {key: tuple(tuple(s) for s in shapes) for key, shapes in profile.items()}
                    for profile in engine["profiles"]
                ),
            )
            for name, engine in data["engines"].items()
        }
        return BuildRecipe(engines, dict(data["spelled_out"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{BUILD} is malformed ({error!r}); export the bundle again") from None
