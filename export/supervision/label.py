"""A model's answers as supervision: any bundle labels photographs in ViDA-UGC's training form.

So a teacher of any size and vocabulary teaches by what it says; `export.supervision.vida` reads it.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from export.supervision.vida import CONVERSATIONS, IMAGES, METADATA
from idetex_edge import Assessor, Description, Distortion, Score
from idetex_edge.errors import ExportError, ImageError, OutputError
from idetex_edge.pictures import find_pictures
from idetex_edge.whole import whole_folder

_DESCRIBE = "<image>\nPlease evaluate the image quality in detail and provide your reasons."


def label(
    assessor: Assessor,
    photos: Sequence[str],
    output: Path,
    advance: Callable[[str, int, int], None],
) -> tuple[int, int]:
    """Assess every picture of files, folders and patterns into a new folder `output`.

    It then holds copies of the pictures and the two files that `read_vida` reads. Returns how many
    pictures were labelled and how many could not be read. Raises ExportError when there is none,
    OutputError when `output` exists or cannot be written.
    """
    if output.exists():
        raise OutputError(f"{output} exists; delete it or give another --output")
    found = find_pictures(photos)
    metadata: list[dict[str, Any]] = []
    talks: list[dict[str, Any]] = []
    with whole_folder(output) as partial:
        (partial / IMAGES).mkdir(parents=True)
        for done, picture in enumerate(found):
            advance("labelling", done, len(found))
            if picture.problem is not None:
                continue
            try:
                seen = assessor.encode(picture.path)
            except ImageError:
                continue
            name = f"{len(metadata):06d}{Path(picture.path).suffix.lower()}"
            shutil.copyfile(picture.path, partial / IMAGES / name)
            facts = _facts(assessor.score(seen), assessor.ground(seen))
            metadata.append({"image": name, "source": picture.name.as_posix(), **facts})
            talks.append(_talk(name, assessor.describe(seen)))
        if not metadata:
            raise ExportError(f"no picture in {', '.join(photos)} could be read; give photographs")
        (partial / METADATA).write_text(json.dumps(metadata, indent=1) + "\n")
        (partial / CONVERSATIONS).write_text(json.dumps(talks, indent=1) + "\n")
    advance("labelling", len(found), len(found))
    return len(metadata), len(found) - len(metadata)


def _facts(score: Score, found: Sequence[Distortion]) -> dict[str, Any]:
    distortions = [
        {
            "distortion": distortion.type,
            "severity": distortion.severity,
            "coordinates": list(distortion.box_1000),
            "confidence": round(distortion.confidence, 4),
        }
        for distortion in found
    ]
    return {"level": score.level, "mos": round(score.mos, 3), "distortions": distortions}


def _talk(name: str, description: Description) -> dict[str, Any]:
    said = [{"from": "human", "value": _DESCRIBE}, {"from": "gpt", "value": description.text}]
    return {"id": name, "image": name, "conversations": said}
