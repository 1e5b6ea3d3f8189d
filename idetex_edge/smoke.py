"""The smoke check: one drawn picture's score, noted when a bundle is made, repeated anywhere."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
from PIL import Image

from idetex_edge.assessor import Assessor
from idetex_edge.bundle import Bundle
from idetex_edge.errors import BundleError

SMOKE: Final = "smoke.json"
TOLERANCE: Final = 0.02
"""The most that a level's probability may differ: processors round in their own ways."""


def levels_of(assessor: Assessor) -> list[float]:
    """Give the five level probabilities of the drawn picture."""
    return [float(p) for p in assessor.score(_picture()).level_probabilities.values()]


def check(bundle: Bundle, assessor: Assessor) -> float | None:
    """Repeat the check: the largest difference, or None where the bundle notes no figures.

    Raises BundleError when a probability differs by more than `TOLERANCE`.
    """
    if SMOKE not in bundle.manifest.files:
        return None
    noted = json.loads(bundle.file(SMOKE).read_text(encoding="utf-8"))["level_probabilities"]
    found = levels_of(assessor)
    worst = max(abs(a - b) for a, b in zip(noted, found, strict=True))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"the smoke check differs by {worst:.3f} on {assessor.engine}: noted {noted}, found "
            f"{found}; try another engine or export the bundle again"
        )
    return worst


def _picture() -> Image.Image:
    """Draw gradients and a grid: the same bytes everywhere."""
    y, x = np.mgrid[0:224, 0:280]
    pixels = np.stack([x * 255 // 279, y * 255 // 223, ((x // 14 + y // 14) % 2) * 255], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))
