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
from PIL import Image
from torch import Tensor

from export.distortions.causes import CAUSES
from export.distortions.chance import Chance
from export.distortions.compose import Spoiled, Truth, spoil
from export.distortions.masks import coverage
from export.distortions.pictures import to_picture
from export.pool.appearance import Appearance, appearance_of
from export.pool.fidelity import Fidelity, fidelity_of
from export.pool.photos import Photo
from export.recipe import WHOLE, Recipe
from idetex_edge.errors import ExportError
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
    ((476, 644), 1),
    ((644, 476), 1),
    ((364, 644), 1),
    ((504, 504), 1),
    ((560, 840), 0.5),
)
"""Picture sizes (height, width) in the pool and how often each is drawn."""

SHARD: Final = 64

_AS_SPOILED: Final = 0.3
_NEARLY: Final = (0.95, 1.06)
_LARGER: Final = (1.06, 1.4)
"""How the pictures that are spoiled relate to the ones that a model sees.

A runtime resizes what it is given to whole cells, and shrinks what is over its pixel budget, so
noise, blocks and stairs reach a model resampled more often than not. `_AS_SPOILED` of the shards
are not; of the others half are resized a little, each axis by its own factor, half shrunk.
"""


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


def crop_to(
    photo: np.ndarray, height: int, width: int, chance: Chance, anywhere: bool = True
) -> Tensor:
    """Shrink a photograph [H, W, 3] somewhat, at random, and cut [3, height, width] out of it.

    Unless `anywhere`, as much of it as there can be, from the middle.
    """
    full_height, full_width = photo.shape[:2]
    least = max(height / full_height, width / full_width)
    scale = 1.0 if chance.random() < 0.3 else chance.log_uniform(least, 1.0)
    scale = scale if anywhere else least
    image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    if scale < 0.97:
        target = (max(height, round(full_height * scale)), max(width, round(full_width * scale)))
        image = nn_f.interpolate(image[None], target, mode="bicubic", antialias=True)[0].clamp(0, 1)
    spare = (image.shape[1] - height, image.shape[2] - width)
    top, left = (chance.randint(0, length) if anywhere else length // 2 for length in spare)
    image = image[:, top : top + height, left : left + width]
    return image.flip(-1) if chance.random() < 0.5 else image


def size_to_spoil(height: int, width: int, chance: Chance) -> tuple[int, int]:
    """The size (height, width) at which to spoil pictures that a model sees as height x width."""
    if chance.random() < _AS_SPOILED:
        return height, width
    if chance.random() < 0.5:
        return round(height * chance.uniform(*_NEARLY)), round(width * chance.uniform(*_NEARLY))
    factor = chance.uniform(*_LARGER)
    return round(height * factor), round(width * factor)


def as_seen(image: Tensor, height: int, width: int) -> np.ndarray:
    """A picture [3, H, W] in 0..1 resized as the image processor does, uint8 [3, height, width]."""
    picture = to_picture(image)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


def cell_maps(spoiled: Spoiled, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Per-cell coverage (0..255) and severity (0..3) of each distortion, uint8 [10, h, w].

    Cells are those of the picture as the model sees it, height x width.
    """
    height, width = height // CELL, width // CELL
    share = np.zeros((len(DISTORTIONS), height, width), np.uint8)
    severity = np.zeros_like(share)
    for truth, mask in zip(spoiled.truths, spoiled.masks, strict=True):
        kind = DISTORTIONS.index(truth.type)
        cells = (coverage(mask, height, width) * 255).round().byte().numpy()
        share[kind] = np.maximum(share[kind], cells)
        grade = SEVERITIES.index(truth.severity) + 1
        severity[kind] = np.maximum(severity[kind], np.where(cells > 0, grade, 0))
    return share, severity


def write_shard(
    folder: Path,
    photos: Sequence[Photo],
    root: Path,
    seed: int,
    held_out: bool,
    recipe: Recipe = WHOLE,
) -> Path:
    """Spoil `SHARD` pictures of one size drawn by `seed` and put the shard in `folder`.

    Raises ExportError when no photograph is large enough for any size.
    """
    chance = Chance(seed)
    sizes = [size for size in SIZES if any(photo.holds(*size[0]) for photo in photos)]
    if not sizes:
        raise ExportError(f"no photograph in {root} holds {SIZES[0][0]} px; give larger ones")
    (height, width), _ = chance.choices(sizes, [weight for _, weight in sizes])[0]
    # Enlarging would be a distortion of its own.
    wanted = size_to_spoil(height, width, chance) if "resampling" in recipe else (height, width)
    large = [photo for photo in photos if photo.holds(*wanted)]
    if not large:
        wanted = (height, width)
        large = [photo for photo in photos if photo.holds(*wanted)]
    images = np.empty((SHARD, 3, height, width), np.uint8)
    grid = (SHARD, len(DISTORTIONS), height // CELL, width // CELL)
    shares, severities = np.empty(grid, np.uint8), np.empty(grid, np.uint8)
    records: list[Record] = []
    for row in range(SHARD):
        photo = chance.choice(large)
        clean = crop_to(photo.load(), *wanted, chance, "cropping" in recipe)
        picture_seed = chance.getrandbits(48)
        spoiled = spoil(clean, picture_seed, held_out)
        images[row] = as_seen(spoiled.image, height, width)
        shares[row], severities[row] = cell_maps(spoiled, height, width)
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


def require_split(pool: Path, held_out: bool) -> None:
    """Raise ExportError where a pool has causes that are not of its side of the split."""
    allowed = {cause.name for cause in CAUSES if cause.held_out == held_out}
    for folder in shard_folders(pool):
        spoiled = {truth.cause for r in Shard.open(folder).records for truth in r.truths}
        if others := sorted(spoiled - allowed):
            side = "held-out" if held_out else "trained"
            raise ExportError(
                f"{folder} has pictures spoiled by {others[0]}, not among this version's {side} "
                "causes; give a new run folder"
            )
