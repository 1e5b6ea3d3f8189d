"""Random batches from a pool, pictures of one size in each, mirrored at random."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import torch
from torch import Tensor

from export.pool.shards import Record, Shard, shard_folders
from export.student.architecture import IMAGE_MEAN, IMAGE_STD

_LOOK_FOR_SHARDS: Final = 200
"""Draws between two looks at what the pool holds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one size and their truth.

    `pixels` float32 [B, 3, H, W] normalised; `coverage` float32 [B, 10, h, w] in 0..1;
    `severity` uint8 [B, 10, h, w] in 0..3; `mirrored` [B] pairs (left-right, top-bottom).
    """

    pixels: Tensor
    coverage: Tensor
    severity: Tensor
    records: tuple[Record, ...]
    mirrored: tuple[tuple[bool, bool], ...]


def normalise(images: np.ndarray) -> Tensor:
    """uint8 [..., 3, H, W] to the model's input range, as its image processor does."""
    mean = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (torch.from_numpy(images).float() / 255 - mean) / std


class Batches:
    """Draws from whatever shards a pool holds at the time; new ones join every few hundred draws.

    `pixels` is the budget of a batch: pictures are as many as fit it. A draw depends on its number
    and `seed` alone, so training that goes on with number `first` draws what it would have drawn.
    """

    def __init__(
        self, pool: Path, pixels: int, seed: int, first: int = 0, mirrors: bool = True
    ) -> None:
        self._pool, self._pixels, self._seed, self._first = pool, pixels, seed, first
        self._mirrors = mirrors
        self._shards: dict[Path, Shard] = {}

    def __iter__(self) -> Iterator[Batch]:
        for number in count(self._first):
            if number == self._first or number % _LOOK_FOR_SHARDS == 0:
                for folder in shard_folders(self._pool):
                    if folder not in self._shards:
                        self._shards[folder] = Shard.open(folder)
            random = Random(f"{self._seed} {number}")
            yield self._draw(random.choice(list(self._shards.values())), random)

    def _draw(self, shard: Shard, random: Random) -> Batch:
        height, width = shard.images.shape[-2:]
        size = max(2, min(len(shard.records), round(self._pixels / (height * width))))
        rows = sorted(random.sample(range(len(shard.records)), size))
        mirrored = tuple(
            (self._mirrors and random.random() < 0.5, self._mirrors and random.random() < 0.25)
            for _ in rows
        )

        def gather(array: np.ndarray) -> np.ndarray:
            picked = [
                array[row][..., :: -1 if down else 1, :: -1 if across else 1]
                for row, (across, down) in zip(rows, mirrored, strict=True)
            ]
            return np.ascontiguousarray(np.stack(picked))

        return Batch(
            normalise(gather(shard.images)),
            torch.from_numpy(gather(shard.coverage)).float() / 255,
            torch.from_numpy(gather(shard.severity)),
            tuple(shard.records[row] for row in rows),
            mirrored,
        )
