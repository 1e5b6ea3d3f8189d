"""Labelled pictures as they are found, whole, as the runtime would see them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from torch import Tensor

from export.distortions.compose import Truth
from export.student.architecture import MAX_PIXELS, MIN_PIXELS
from export.supervision.example import Example
from export.supervision.labelled import Labelled, mirrored
from export.supervision.truths import mirror
from export.training.batches import normalise
from export.training.known import Known, known_of_labelled
from idetex_edge.image import load_image
from idetex_edge.preprocess import smart_resize


def size_as_seen(width: int, height: int) -> tuple[int, int]:
    """Width and height to which the image processor resizes a picture."""
    rows, columns = smart_resize(
        height, width, factor=28, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
    )
    return columns, rows


def as_the_model_sees(path: Path) -> np.ndarray:
    """A picture read and resized as the runtime does, uint8 [3, H, W].

    Raises ImageError where it cannot be read.
    """
    picture = load_image(path)
    resized = picture.resize(size_as_seen(*picture.size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.array(resized).transpose(2, 0, 1))


def scored(pictures: Sequence[Labelled]) -> list[Labelled]:
    """The pictures that are asked for a level, and nothing but that question of each."""
    return [
        replace(picture, examples=levels)
        for picture in pictures
        if (levels := tuple(e for e in picture.examples if e.levels))
    ]


def placed(pictures: Sequence[Labelled]) -> list[Labelled]:
    """The pictures of which it is known what is wrong and where."""
    return [picture for picture in pictures if picture.truths is not None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Labelled pictures of one size: normalised pixels [B, 3, H, W], questions of each, truth."""

    pixels: Tensor
    examples: list[list[Example]]
    known: Known


class RealBatches:
    """Batches of labelled pictures seen in one size; if it `mirrors`, half of them mirrored.

    `pixels` is the budget of a batch: pictures are as many as fit it, at least one. Of their
    examples at most `questions` are drawn, of each picture as many, at least one. A draw depends on
    its number and `seed` alone.
    """

    def __init__(
        self,
        pictures: Sequence[Labelled],
        pixels: int,
        seed: str,
        mirrors: bool = True,
        questions: int = 24,
    ) -> None:
        self._pixels, self._questions, self._seed = pixels, questions, seed
        self._mirrors = mirrors
        by_size: dict[tuple[int, int], list[Labelled]] = defaultdict(list)
        for picture in pictures:
            by_size[size_as_seen(*picture.size)].append(picture)
        self._groups = list(by_size.items())

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._groups)

    def draw(self, number: int) -> Drawn:
        """Draw the batch of this number."""
        random = Random(f"{self._seed} {number}")
        weights = [len(group) for _, group in self._groups]
        (width, height), group = random.choices(self._groups, weights)[0]
        count = max(1, min(len(group), self._pixels // (width * height)))
        each = max(1, self._questions // count)
        pictures = random.sample(group, count)
        images: list[np.ndarray] = []
        asked: list[list[Example]] = []
        truths: list[Sequence[Truth] | None] = []
        for picture in pictures:
            examples = random.sample(picture.examples, min(each, len(picture.examples)))
            image, found = as_the_model_sees(picture.path), picture.truths
            if self._mirrors and random.random() < 0.5:
                image, examples = image[..., ::-1], mirrored(examples)
                found = None if found is None else mirror(found, across=True, down=False)
            images.append(image)
            asked.append(examples)
            truths.append(found)
        pixels = normalise(np.ascontiguousarray(np.stack(images)))
        known = known_of_labelled(pixels, truths, [picture.examples for picture in pictures])
        return Drawn(pixels, asked, known)
