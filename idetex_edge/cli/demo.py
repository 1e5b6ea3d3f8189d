"""`idetex-edge demo`: spoil a known part of a photograph, and see what is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from idetex_edge.assessor import Assessor
from idetex_edge.boxes import overlap
from idetex_edge.cli.printing import print_view
from idetex_edge.cli.views import box_text, distortion_table, score_line
from idetex_edge.errors import RequestError
from idetex_edge.overlay import save_image_atomically
from idetex_edge.results import Assessment, Box, Distortion

Pixels = npt.NDArray[np.uint8]

_PHOTO: Final = "coffee"


@dataclass(frozen=True, slots=True)
class Harm:
    """Something done to a part of a picture: what it looks like, where (pixels), and how."""

    type: str
    box: Box
    spoil: Callable[[Pixels], npt.NDArray[np.floating]]


def _noisy(part: Pixels) -> npt.NDArray[np.floating]:
    return part + np.random.default_rng(0).normal(0, 70, part.shape)


def _dark(part: Pixels) -> npt.NDArray[np.floating]:
    return part * 0.12


HARMS: Final = (
    Harm("Noise", (40, 40, 260, 300), _noisy),
    Harm("Underexposure", (380, 120, 580, 380), _dark),
)
"""What the demo does to its photograph of 600 x 400 pixels."""


def run_demo(assessor: Assessor, output: Path) -> None:
    """Assess a photograph clean and spoiled, print what was done beside what was found.

    The spoiled picture's overlay is written to `output`. Raises RequestError when scikit-image,
    which brings the photograph, is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise RequestError(
            "the demo's photograph comes with scikit-image; pip install 'idetex-edge[demo]'"
        ) from None
    clean: Pixels = getattr(data, _PHOTO)()
    before = assessor.assess(clean)
    after = assessor.assess(spoiled(clean, HARMS))
    save_image_atomically(after.overlay(), output)
    print_view(_view(before, after, output))


def spoiled(picture: Pixels, harms: Sequence[Harm]) -> Pixels:
    """A copy of a picture, uint8 [H, W, 3], with all harms done to it."""
    result = picture.copy()
    for harm in harms:
        x1, y1, x2, y2 = harm.box
        part = harm.spoil(result[y1:y2, x1:x2])
        result[y1:y2, x1:x2] = np.clip(np.rint(part), 0, 255).astype(np.uint8)
    return result


def _view(clean: Assessment, spoilt: Assessment, output: Path) -> RenderableType:
    title = f"A photograph of scikit-image, {_PHOTO!r}, clean and spoiled in {len(HARMS)} places"
    body = Group(
        score_line("clean", clean.score, clean.level),
        score_line("spoiled", spoilt.score, spoilt.level),
        "",
        _comparison(spoilt.distortions),
        "",
        Text("everything found in the spoiled photograph", "dim"),
        distortion_table(spoilt.distortions, spoilt.key_distortions),
        "",
        Text(spoilt.description),
        "",
        Text(f"overlay written to {output}", "bold", overflow="fold"),
    )
    return Group(Text(title, "bold"), Padding(body, (1, 0, 0, 2), expand=False))


def _comparison(found: Sequence[Distortion]) -> Table:
    """What was done beside the distortion found of the same type that fits it best."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("what was done", "where", "what was found"):
        table.add_column(name)
    table.add_column("overlap", justify="right")
    for harm in HARMS:
        fits = {
            overlap(harm.box, distortion.box): distortion
            for distortion in found
            if distortion.type == harm.type and distortion.box is not None
        }
        outcome = Text("nothing of the kind", "red")
        best = max(fits, default=0.0)
        if fits:
            outcome = Text(f"{fits[best].severity} {harm.type.lower()}", "green")
        done = f"severe {harm.type.lower()}"
        table.add_row(done, box_text(harm.box), outcome, f"{best:.0%}" if fits else "")
    return table
