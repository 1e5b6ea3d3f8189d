"""Pictures that hold nothing, where any will do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(folder: Path, pictures: int) -> None:
    """Write pictures of noise, 00.png and on, each a pixel wider than the one before."""
    chance = np.random.default_rng(0)
    for number in range(pictures):
        pixels = chance.integers(0, 256, (64, 64 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
