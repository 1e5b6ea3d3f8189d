"""Labelled pictures as they are found, whole, as the runtime would see them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from torch import Tensor

from export.student.architecture import MAX_PIXELS, MIN_PIXELS
from export.supervision.example import Example
from export.supervision.labelled import Labelled, mirrored
from export.training.batches import normalise
from idetex_edge.preprocess import smart_resize


def size_as_seen(width: int, height: int) -> tuple[int, int]:
    """Width and height to which the image processor resizes a picture."""
    rows, columns = smart_resize(
        height, width, factor=28, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
    )
    return columns, rows


def as_the_model_sees(path: Path) -> np.ndarray:
    """A picture resized as the image processor does, uint8 [3, H, W]."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    resized = picture.resize(size_as_seen(*picture.size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.array(resized).transpose(2, 0, 1))


def asked_for_scores(pictures: Sequence[Labelled]) -> list[Labelled]:
    """The pictures that are asked for a level, and nothing but that question of each."""
    return [
        replace(picture, examples=levels)
        for picture in pictures
        if (levels := tuple(e for e in picture.examples if e.levels))
    ]


class RealBatches:
    """Batches of labelled pictures that are seen in one size, mirrored half of the time.

    At most `questions` of a picture's examples are drawn at a time. Pictures of which fewer than a
    batch share a size are left out. A draw depends on its number and `seed` alone.
    """

    def __init__(
        self, pictures: Sequence[Labelled], size: int, seed: int, questions: int = 12
    ) -> None:
        self._size, self._questions, self._seed = size, questions, seed
        by_size: dict[tuple[int, int], list[Labelled]] = defaultdict(list)
        for picture in pictures:
            by_size[size_as_seen(*picture.size)].append(picture)
        self._groups = [group for group in by_size.values() if len(group) >= size]

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._groups)

    def draw(self, number: int) -> tuple[Tensor, list[list[Example]]]:
        """Normalised pixels [B, 3, H, W] and the examples of each picture."""
        random = Random(f"{self._seed} {number}")
        group = random.choices(self._groups, [len(group) for group in self._groups])[0]
        images: list[np.ndarray] = []
        asked: list[list[Example]] = []
        for picture in random.sample(group, self._size):
            examples = random.sample(picture.examples, min(self._questions, len(picture.examples)))
            image = as_the_model_sees(picture.path)
            if random.random() < 0.5:
                image, examples = image[..., ::-1], mirrored(examples)
            images.append(image)
            asked.append(examples)
        return normalise(np.ascontiguousarray(np.stack(images))), asked
