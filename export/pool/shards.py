"""Spoiled pictures on disk, in shards of one size, for every stage of training to draw from.

Spoiling costs as much as a training step on a CPU, so it is done once, by a process of its own;
training maps the shards into memory and picks up new ones as they appear. A shard is a folder::

    images.npy    uint8 [n, 3, H, W]
    coverage.npy  uint8 [n, 10, H/28, W/28]   share of each cell a distortion covers, x 255
    severity.npy  uint8 [n, 10, H/28, W/28]   0 none, 1 minor, 2 moderate, 3 severe
    records.jsonl one `Record` a line
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as nn_f
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.compose import Spoiled, Truth, spoil
from export.distortions.masks import coverage
from export.pool.appearance import Appearance, appearance_of
from export.pool.fidelity import Fidelity, fidelity_of
from export.pool.photos import Photo
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

CELL: Final = 28
"""Pixels a merged vision token covers, each way."""

SIZES: Final = (
    ((224, 224), 5),
    ((336, 336), 8),
    ((364, 364), 3),
    ((280, 364), 3),
    ((364, 280), 3),
    ((252, 364), 2),
    ((364, 252), 2),
    ((420, 560), 1),
    ((560, 420), 1),
    ((364, 644), 1),
    ((504, 504), 1),
    ((560, 840), 0.5),
)
"""Picture sizes (height, width) in the pool and how often each is drawn."""

SHARD: Final = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one pooled picture besides its pixels and maps."""

    photo: str
    seed: int
    clean_mos: float | None
    truths: tuple[Truth, ...]
    fidelity: Fidelity
    appearance: Appearance

    def to_json(self) -> str:
        """One line of records.jsonl."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Read one line of records.jsonl."""
        data: dict[str, Any] = json.loads(line)
        for truth in data["truths"]:
            truth["box"] = tuple(truth["box"])
        data["truths"] = tuple(Truth(**truth) for truth in data["truths"])
        data["fidelity"] = Fidelity(**data["fidelity"])
        data["appearance"] = Appearance(**data["appearance"])
        return cls(**data)


def crop_to(photo: np.ndarray, height: int, width: int, chance: Chance) -> Tensor | None:
    """Shrink a photograph somewhat, at random, and cut [3, height, width] out of it.

    None when it is too small: enlarging would be a distortion of its own.
    """
    full_height, full_width = photo.shape[:2]
    least = max(height / full_height, width / full_width)
    if least > 1.0:
        return None
    scale = 1.0 if chance.random() < 0.3 else chance.log_uniform(least, 1.0)
    image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    if scale < 0.97:
        target = (max(height, round(full_height * scale)), max(width, round(full_width * scale)))
        image = nn_f.interpolate(image[None], target, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top = chance.randint(0, image.shape[1] - height)
    left = chance.randint(0, image.shape[2] - width)
    image = image[:, top : top + height, left : left + width]
    return image.flip(-1) if chance.random() < 0.5 else image


def cell_maps(spoiled: Spoiled) -> tuple[np.ndarray, np.ndarray]:
    """Per-cell coverage (0..255) and severity (0..3) of each distortion, uint8 [10, h, w]."""
    height, width = spoiled.image.shape[1] // CELL, spoiled.image.shape[2] // CELL
    share = np.zeros((len(DISTORTIONS), height, width), np.uint8)
    severity = np.zeros_like(share)
    for truth, mask in zip(spoiled.truths, spoiled.masks, strict=True):
        kind = DISTORTIONS.index(truth.type)
        cells = (coverage(mask, CELL) * 255).round().byte().numpy()
        share[kind] = np.maximum(share[kind], cells)
        grade = SEVERITIES.index(truth.severity) + 1
        severity[kind] = np.maximum(severity[kind], np.where(cells > 0, grade, 0))
    return share, severity


def write_shard(
    folder: Path, photos: Sequence[Photo], root: Path, seed: int, held_out: bool
) -> Path:
    """Spoil `SHARD` pictures of one size drawn by `seed` and put the shard in `folder`."""
    chance = Chance(seed)
    (height, width), _ = chance.choices(SIZES, [weight for _, weight in SIZES])[0]
    images = np.empty((SHARD, 3, height, width), np.uint8)
    grid = (SHARD, len(DISTORTIONS), height // CELL, width // CELL)
    shares, severities = np.empty(grid, np.uint8), np.empty(grid, np.uint8)
    records: list[Record] = []
    while len(records) < SHARD:
        photo = chance.choice(photos)
        clean = crop_to(photo.load(), height, width, chance)
        if clean is None:
            continue
        picture_seed = chance.getrandbits(48)
        spoiled = spoil(clean, picture_seed, held_out)
        row = len(records)
        images[row] = (spoiled.image * 255).round().byte().numpy()
        shares[row], severities[row] = cell_maps(spoiled)
        name = photo.path.relative_to(root).as_posix()
        fidelity = fidelity_of(clean, spoiled.image)
        looks = appearance_of(spoiled.image)
        records.append(Record(name, picture_seed, photo.mos, spoiled.truths, fidelity, looks))
    done = folder / f"{seed:06d}_{height}x{width}"
    partial = done.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    np.save(partial / "images.npy", images)
    np.save(partial / "coverage.npy", shares)
    np.save(partial / "severity.npy", severities)
    (partial / "records.jsonl").write_text("".join(r.to_json() + "\n" for r in records))
    return partial.rename(done)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard mapped into memory (layouts in this module's docstring)."""

    images: np.ndarray
    coverage: np.ndarray
    severity: np.ndarray
    records: tuple[Record, ...]

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        """Map one shard folder."""
        lines = (folder / "records.jsonl").read_text().splitlines()
        arrays = [
            np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("images", "coverage", "severity")
        ]
        return cls(*arrays, records=tuple(Record.from_json(line) for line in lines))


def shard_folders(pool: Path) -> list[Path]:
    """The finished shards of a pool, oldest first."""
    return sorted(p for p in pool.iterdir() if p.is_dir() and p.suffix != ".partial")
