"""What a model takes each cause of every distortion for: where its blind spots are.

    python benchmarks/causes.py --photos DIR [--pictures 16] [--bundle BUNDLE] [--json OUT]

Each photograph is spoiled whole, by every cause at the middle of its range for minor, moderate and
severe, and grounded. A row of the table is a cause: the share of pictures whose most confident
distortion is the right one, and what the others are mostly taken for. `nothing` is a picture in
which none is found; the first row is of the photographs as they are.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.spoiled_whole import (
    WHOLE_CAUSES,
    Out,
    Photos,
    Pictures,
    Seed,
    by_every_cause,
    choose,
    one_by_one,
)
from idetex_edge import Assessor
from idetex_edge.cli.options import BundleName, open_assessor
from idetex_edge.cli.script import run
from idetex_edge.engines import AUTO
from idetex_edge.vocabulary import SEVERITIES

NOTHING: Final = "nothing"
_AS_IT_IS: Final = "none"

Names = Mapping[str, Sequence[str]]
"""What pictures spoiled by one cause were taken for, by severity."""


def name_of(assessor: Assessor, picture: Image.Image) -> str:
    """The type of the most confident distortion in a picture, or `NOTHING`."""
    found = assessor.ground(picture)
    return max(found, key=lambda distortion: distortion.confidence).type if found else NOTHING


def names_by_cause(
    assessor: Assessor, photograph: Image.Image, seed: int
) -> dict[str, dict[str, str]]:
    """What a photograph is taken for, spoiled by each cause (by name) at each severity."""
    return {
        cause.name: {
            severity: name_of(assessor, image)
            for severity, image in zip(SEVERITIES, spoiled, strict=True)
        }
        for cause, spoiled in by_every_cause(photograph, seed)
    }


def right_share(right: str, names: Sequence[str]) -> float:
    """The share of names that are the right one."""
    return names.count(right) / len(names)


def mistaken_for(right: str, names: Names) -> str | None:
    """What most of the wrong names are, over all severities; None where all are right."""
    wrong = Counter(name for said in names.values() for name in said if name != right)
    return wrong.most_common(1)[0][0] if wrong else None


def causes(
    photos: Photos,
    pictures: Pictures = 16,
    bundle: BundleName = None,
    seed: Seed = 1,
    out: Out = None,
) -> None:
    """Tell what each cause of every distortion is taken for."""
    chosen = choose(photos, pictures, seed)
    assessor = open_assessor(bundle, AUTO, None)
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    untouched: list[str] = []
    for photograph, own_seed in one_by_one(chosen, seed):
        untouched.append(name_of(assessor, photograph))
        for cause, names in names_by_cause(assessor, photograph, own_seed).items():
            for severity, name in names.items():
                said[cause][severity].append(name)
    if out is not None:
        counted = {
            cause: {severity: dict(Counter(names)) for severity, names in by_severity.items()}
            for cause, by_severity in said.items()
        }
        figures = {
            "pictures": len(chosen),
            "untouched": dict(Counter(untouched)),
            "taken_for": counted,
        }
        out.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table(title=f"{len(chosen)} photographs, spoiled whole", title_justify="left")
    for heading in ("distortion", "cause"):
        table.add_column(heading)
    for severity in SEVERITIES:
        table.add_column(severity, justify="right")
    table.add_column("else mostly")
    others = mistaken_for(NOTHING, {NOTHING: untouched})
    table.add_row(NOTHING, _AS_IT_IS, f"{right_share(NOTHING, untouched):.0%}", "", "", others)
    for cause in WHOLE_CAUSES:
        names, right = said[cause.name], cause.distortion
        shares = [f"{right_share(right, names[severity]):.0%}" for severity in SEVERITIES]
        named = f"{cause.name} (held out)" if cause.held_out else cause.name
        table.add_row(right, named, *shares, mistaken_for(right, names))
    Console().print(table)


if __name__ == "__main__":
    run(causes)
