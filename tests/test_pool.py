"""Spoiled pictures: as a model sees them, on disk, in batches."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from export.distortions.chance import Chance
from export.distortions.pictures import to_picture
from export.pool.photos import Photo, list_photos
from export.pool.shards import (
    Record,
    Shard,
    as_seen,
    require_split,
    shard_folders,
    size_to_spoil,
    write_shard,
)
from export.student.architecture import IMAGE_MEAN, IMAGE_STD
from export.supervision.examples import examples_for
from export.training.batches import Batches
from idetex_edge.errors import ExportError
from idetex_edge.preprocess import Preprocessor


def test_pictures_are_spoiled_at_other_sizes_than_they_are_seen() -> None:
    sizes = [size_to_spoil(224, 336, Chance(seed)) for seed in range(200)]
    assert 0.2 < np.mean([size == (224, 336) for size in sizes]) < 0.4
    assert 0.25 < np.mean([height > 240 for height, _ in sizes]) < 0.45
    image = torch.rand(3, 250, 340)
    seen = as_seen(image, 224, 336)
    processor = Preprocessor(14, 2, 2, 28 * 28, 10**6, IMAGE_MEAN, IMAGE_STD)
    theirs = processor.patchify(to_picture(image))
    assert seen.shape == (3, 224, 336)
    assert theirs.grid == (18, 24)
    assert as_seen(image, 252, 336).mean() == pytest.approx(
        255 * (theirs.patches.mean() + 1) / 2, abs=0.01
    )


def test_too_small_photographs_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (100, 300)).save(tmp_path / "small.png")
    photo = Photo(tmp_path / "small.png", "x", None, scored=False, held_out=False)
    with pytest.raises(ExportError, match=r"no photograph in .* holds"):
        write_shard(tmp_path / "pool", [photo], tmp_path, seed=1, held_out=False)


def test_pictures_of_the_other_side_of_the_split_are_refused(
    photo_folder: Path, tmp_path: Path
) -> None:
    clean = [p for p in list_photos(photo_folder) if not p.scored]
    write_shard(tmp_path, clean, photo_folder, seed=6, held_out=True)
    require_split(tmp_path, held_out=True)
    with pytest.raises(ExportError, match=r"spoiled by .*not among this version's trained causes"):
        require_split(tmp_path, held_out=False)


def test_shards_and_records_survive_the_disk(photo_folder: Path, tmp_path: Path) -> None:
    listed = list_photos(photo_folder)
    assert {p.path.name for p in listed if p.held_out and not p.scored} == {"coffee.png"}
    clean = [p for p in listed if not p.scored]
    pool = tmp_path / "pool"
    folder = write_shard(pool, clean, photo_folder, seed=5, held_out=False)
    again = write_shard(tmp_path / "again", clean, photo_folder, seed=5, held_out=False)
    shard, copy = Shard.open(folder), Shard.open(again)
    assert np.array_equal(shard.images, copy.images)
    assert shard.records == copy.records
    assert shard_folders(pool) == [folder]
    record = shard.records[0]
    assert Record.from_json(record.to_json()) == record
    batch = next(iter(Batches(pool, 300_000, seed=1)))
    assert batch.pixels.shape[0] == len(batch.records)
    assert float(batch.pixels.min()) >= -1
    assert float(batch.pixels.max()) <= 1
    kinds = {e.task for e in examples_for(batch.records[0], (True, False), Random(0))}
    assert {"score", "grounding", "region", "locate"} <= kinds
