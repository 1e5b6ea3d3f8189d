"""iDETEX's training recipe as named parts, any of which can be left out to see what it is worth.

After iDETEX (arXiv 2510.17332, section 3): offline augmentation of each task, mixing of
heterogeneous supervision, online augmentation; and what a small model needs besides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from idetex_edge.errors import ExportError

POOL_PARTS: Final[Mapping[str, str]] = {
    "cropping": "spoiled pictures are cut out of photographs at random places and scales",
    "resampling": "most pictures are spoiled in another size than a model sees them in",
}
"""Parts that make the pool; training without one needs a pool of its own."""

PARTS: Final[Mapping[str, str]] = {
    **POOL_PARTS,
    "mirroring": "pictures are mirrored at random, and boxes and words for places with them",
    "redrawing": "what a picture is asked, its options and their order are drawn anew each time",
    "rephrasing": "a question is put in any of several wordings",
    "shortening": "reasoning is asked for in brief, too",
    "mixing": "tasks are mixed and weighed by how hard they are to learn, not all alike",
    "pointing": "cells learn where they lie, and coordinates to look along the edges they tell",
    "doubt": "evidence that is told has the errors that a tower would make",
    "photographs": "photographs that people scored are learnt from beside the spoiled ones",
    "labels": "a user's own labelled pictures are learnt from, too; the tower learns their boxes",
    "evidence": "the tower tells each cell's distortions and score while the whole model learns",
    "teaching": "where there is a teacher, its logits, attention and features are learnt from, too",
}
"""What each part does, by name."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All parts of `PARTS` but those named in `without`; raises ExportError for unknown names."""

    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := sorted(self.without - set(PARTS)):
            raise ExportError(f"the recipe has no part {unknown[0]!r}; it has {', '.join(PARTS)}")

    def __contains__(self, part: str) -> bool:
        assert part in PARTS, part
        return part not in self.without


WHOLE: Final = Recipe()


def recipe_without(parts: Iterable[str]) -> Recipe:
    """The recipe without these parts; raises ExportError for unknown names."""
    return Recipe(frozenset(parts))
