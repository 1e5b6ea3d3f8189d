"""Blocking artifacts: block transforms coarsely quantised, by us and by real encoders."""

import io
import math

import numpy as np
import torch
import torch.nn.functional as nn_f
from PIL import Image
from torch import Tensor

from export.distortions.chance import Chance
from export.distortions.filters import from_ycc, resize, to_ycc

# ITU-T T.81, annex K: the example luminance and chrominance quantisation tables.
_LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *((99,) * 32),
)  # fmt: skip


def _dct_matrix(size: int, like: Tensor) -> Tensor:
    position = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * position[None, :] + 1) * position[:, None] / (2 * size))
    basis[0] /= math.sqrt(2)
    return (basis * math.sqrt(2 / size)).to(like)


def _quantise_blocks(plane: Tensor, table: Tensor) -> Tensor:
    """Round the block DCT of a plane [H, W] (0..255 centred on 0) to multiples of `table`."""
    size = table.shape[0]
    height, width = plane.shape
    pad_y, pad_x = -height % size, -width % size
    padded = nn_f.pad(plane[None, None], (0, pad_x, 0, pad_y), mode="replicate")[0, 0]
    rows, columns = padded.shape[0] // size, padded.shape[1] // size
    blocks = padded.view(rows, size, columns, size).transpose(1, 2)
    dct = _dct_matrix(size, plane)
    coefficients = torch.round((dct @ blocks @ dct.T) / table) * table
    decoded = (dct.T @ coefficients @ dct).transpose(1, 2).reshape(padded.shape)
    return decoded[:height, :width]


def _with_one_table(image: Tensor, table: Tensor) -> Tensor:
    """All planes of [3, H, W] at full resolution, their blocks rounded by the same table."""
    planes = to_ycc(image) * 255
    planes[0] -= 128
    decoded = torch.stack([_quantise_blocks(plane, table) for plane in planes])
    decoded[0] += 128
    return from_ycc(decoded / 255)


def _scaled_table(table: tuple[int, ...], quality: float, like: Tensor) -> Tensor:
    """Libjpeg's mapping from quality 1..100 to a scale of the tables."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    return (torch.tensor(table, device=like.device).view(8, 8) * scale).round().clamp(1, 255)


def tensor_jpeg(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """JPEG's lossy core on tensors, chroma at full or half resolution, block grid anywhere."""
    shift = (chance.randint(0, 7), chance.randint(0, 7))
    planes = to_ycc(torch.roll(image, shift, (-2, -1))) * 255
    planes[0] -= 128
    luma = _quantise_blocks(planes[0], _scaled_table(_LUMA_TABLE, quality, image))
    chroma = planes[1:]
    if chance.random() < 0.6:
        chroma = nn_f.avg_pool2d(chroma[None], 2, ceil_mode=True)[0]
    table = _scaled_table(_CHROMA_TABLE, quality, image)
    chroma = torch.stack([_quantise_blocks(plane, table) for plane in chroma])
    chroma = nn_f.interpolate(chroma[None], size=luma.shape, mode="nearest")[0]
    decoded = from_ycc(torch.cat(((luma + 128)[None], chroma)) / 255)
    return torch.roll(decoded, (-shift[0], -shift[1]), (-2, -1))


def large_blocks(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """A video codec starved of bits: 16 px blocks, hardly more than flat tiles."""
    table = torch.full((16, 16), 1.0, device=image.device)
    frequency = torch.arange(16, device=image.device)
    table += (frequency[:, None] + frequency[None, :]) * 2.2
    table *= 420 / (quality + 8)
    return _with_one_table(image, table)


def _through_encoder(image: Tensor, **options: object) -> Tensor:
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, **options)  # type: ignore[arg-type]
    decoded = np.asarray(Image.open(buffer).convert("RGB"))
    return torch.from_numpy(decoded.copy()).to(image.device).permute(2, 0, 1).float() / 255


def jpeg(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """libjpeg, with one of its chroma settings."""
    return _through_encoder(
        image, format="JPEG", quality=round(quality), subsampling=chance.choice((0, 1, 2))
    )


def repeated_jpeg(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """Saved two or three times with the grid shifted in between, as pictures passed around are."""
    for _ in range(chance.randint(2, 3)):
        shift = (chance.randint(0, 7), chance.randint(0, 7))
        again = jpeg(torch.roll(image, shift, (-2, -1)), quality + 4, chance)
        image = torch.roll(again, (-shift[0], -shift[1]), (-2, -1))
    return image


def enlarged_jpeg(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """A JPEG of a smaller picture, enlarged smoothly: blocks larger than 8 px, their rims soft."""
    height, width = image.shape[-2:]
    factor = chance.uniform(1.15, 1.6)
    small = resize(image, round(height / factor), round(width / factor), mode="bilinear")
    decoded = jpeg(small, quality + 4, chance)
    return resize(decoded, height, width, mode=chance.choice(("bilinear", "bicubic")))


def webp(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """Libwebp without its deblocking strength hidden: small blocks and smeared texture."""
    return _through_encoder(image, format="WEBP", quality=max(0, round(quality - 6)), method=2)


def first_scans(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """A progressive JPEG cut off: each 8 px block has its first few frequencies, nothing finer."""
    kept = 1.2 + quality / 9
    frequency = torch.arange(8, device=image.device)
    dropped = (frequency[:, None] + frequency[None, :]) > kept
    table = torch.where(dropped, 1e9, 40.0 - quality)
    return _with_one_table(image, table)


def stretched_jpeg(image: Tensor, quality: float, chance: Chance) -> Tensor:
    """A JPEG of a picture squeezed one way, drawn out again: blocks that are not square."""
    height, width = image.shape[-2:]
    factors = [chance.uniform(1.2, 1.8), 1.0]
    chance.shuffle(factors)
    small = resize(image, round(height / factors[0]), round(width / factors[1]), mode="bilinear")
    return resize(jpeg(small, quality + 2, chance), height, width, mode="bilinear")
