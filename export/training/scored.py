"""Photographs that people scored, whole, as the runtime would see them."""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
from PIL import Image
from torch import Tensor

from export.pool.photos import Photo
from export.student.architecture import MAX_PIXELS, MIN_PIXELS
from export.training.batches import normalise
from idetex_edge.preprocess import smart_resize


def as_the_model_sees(photo: Photo) -> np.ndarray:
    """A photograph resized as the image processor does, uint8 [3, H, W]."""
    with Image.open(photo.path) as opened:
        picture = opened.convert("RGB")
    height, width = smart_resize(
        picture.height, picture.width, factor=28, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
    )
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.array(resized).transpose(2, 0, 1))


class ScoredBatches:
    """Endless batches (pixels [B, 3, H, W], MOS 1..5 of each) of photographs of one size."""

    def __init__(self, photos: Sequence[Photo], size: int, seed: int) -> None:
        self._size = size
        self._random = Random(seed)
        by_shape: dict[tuple[int, ...], list[tuple[np.ndarray, float]]] = {}
        for photo in photos:
            assert photo.mos is not None
            image = as_the_model_sees(photo)
            by_shape.setdefault(image.shape, []).append((image, photo.mos))
        self._shapes = [group for group in by_shape.values() if len(group) >= size]

    def __iter__(self) -> Iterator[tuple[Tensor, list[float]]]:
        while True:
            weights = [len(group) for group in self._shapes]
            group = self._random.choices(self._shapes, weights)[0]
            picked = self._random.sample(group, self._size)
            images = np.stack(
                [im[..., :: -1 if self._random.random() < 0.5 else 1] for im, _ in picked]
            )
            yield normalise(np.ascontiguousarray(images)), [mos for _, mos in picked]
