"""Where overlays go: a file for one picture, a file in a folder for each of several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from idetex_edge.errors import OutputError
from idetex_edge.pictures import Found


def place_overlays(target: Path, pictures: Sequence[Found]) -> dict[Found, Path]:
    """Give each picture the path of its overlay, no two the same one; makes folders as needed.

    Several pictures, or a target without a suffix, need a folder: overlays are named after their
    pictures there, in the folders that those have below the argument. Raises OutputError when a
    folder cannot be made, or a picture would be overwritten.
    """
    places: dict[Found, Path] = {}
    if len(pictures) == 1 and target.suffix and not target.is_dir():
        places[pictures[0]] = target
    else:
        taken: set[Path] = set()
        for picture in dict.fromkeys(pictures):
            places[picture] = _free(target / picture.name, taken)
            taken.add(places[picture])
        _make_folders({place.parent for place in taken})
    sources = {Path(picture.path).resolve() for picture in pictures}
    for place in places.values():
        if place.resolve() in sources:
            raise OutputError(
                f"the overlay {str(place)!r} would overwrite a picture; choose another place"
            )
    return places


def _free(picture: Path, taken: Set[Path]) -> Path:
    place, count = picture.with_suffix(".png"), 1
    while place in taken:
        count += 1
        place = place.with_name(f"{picture.stem}-{count}.png")
    return place


def _make_folders(folders: Iterable[Path]) -> None:
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {str(folder)!r} for the overlays: {error.strerror}; "
                "choose another place"
            ) from None
