"""From an RGB picture to the patches that the vision encoder takes, as Qwen2-VL defines them.

Equal bit for bit to the PIL/numpy image processor of transformers (`Qwen2VLImageProcessorPil`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from idetex_edge.errors import BundleError, ImageError
from idetex_edge.image import MAX_ASPECT

CHANNELS: Final = 3
_RESCALE: Final = 1 / 255


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Choose the (height, width) in pixels that a picture is resized to.

    Both are multiples of `factor`, their product lies in `min_pixels`..`max_pixels` where `factor`
    allows it, and the ratio of the sides stays close to the picture's. The rule is Qwen2-VL's.
    Raises ImageError when one side is over 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"the picture is {width} x {height} pixels, too narrow a strip to be judged; "
            f"crop it to a ratio of at most {MAX_ASPECT}"
        )
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return rows * factor, columns * factor


@dataclass(frozen=True, slots=True, eq=False)
class PatchedImage:
    """One picture as the vision encoder takes it.

    patches: float32 [rows * columns, 3 * T * P * P], normalised; the patches of each merged token
        (merge_size x merge_size) stand together.
    grid: (rows, columns) in patches; each a multiple of merge_size.
    source_size: (width, height) of the picture in pixels, before resizing.
    """

    patches: npt.NDArray[np.float32]
    grid: tuple[int, int]
    source_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """How a model wants its pictures.

    patch_size: side of a patch, pixels. merge_size: side of the square of patches that becomes
    one token. temporal_patch_size: how often the still picture is repeated in time.
    min_pixels, max_pixels: limits on the resized picture's area. image_mean, image_std: for each
    of R, G, B, on the scale 0..1.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    def __post_init__(self) -> None:
        sizes = (self.patch_size, self.merge_size, self.temporal_patch_size, self.min_pixels)
        if min(sizes) < 1 or self.max_pixels < self.min_pixels or min(self.image_std) <= 0:
            raise BundleError(
                f"the model's preprocessing makes no sense: {self.to_dict()}; export it again"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form, as stored in the bundle's manifest; `from_dict` reads it back."""
        data = asdict(self)
        return data | {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessor:
        """Read the manifest's form, or Hugging Face's `preprocessor_config.json`.

        The area's limits are `min_pixels` and `max_pixels`, or `shortest_edge` and `longest_edge`
        inside `size`, where Qwen2-VL keeps areas under those names.
        Raises BundleError when something is missing, malformed, or asks for a treatment other
        than Qwen2-VL's.
        """
        fixed = {
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "resample": int(Image.Resampling.BICUBIC),
        }
        for key, expected in fixed.items():
            if data.get(key, expected) != expected:
                raise BundleError(
                    f"preprocessing with {key}={data[key]!r} is not supported, only {expected!r}; "
                    "use a Qwen2-VL or Qwen2.5-VL processor"
                )
        if not math.isclose(data.get("rescale_factor", _RESCALE), _RESCALE):
            raise BundleError("preprocessing must rescale by 1/255; use a Qwen2-VL processor")
        size = cast("Mapping[str, Any]", data.get("size") or {})
        limits = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        try:
            area = {
                key: int(data[key] if data.get(key) is not None else size[edge])
                for key, edge in limits.items()
            }
            sides = {
                key: int(data[key]) for key in ("patch_size", "merge_size", "temporal_patch_size")
            }
            mean, std = _three(data["image_mean"]), _three(data["image_std"])
        except KeyError as error:
            raise BundleError(f"preprocessing lacks {error}; export the model again") from None
        except (TypeError, ValueError) as error:
            raise BundleError(f"preprocessing is malformed: {error}; export it again") from None
        return cls(**sides, **area, image_mean=mean, image_std=std)

    def patchify(self, image: Image.Image) -> PatchedImage:
        """Resize, normalise and cut up an RGB picture (see `load_image`).

        Raises ImageError when the picture is not RGB or one side is over 200 times the other.
        """
        if image.mode != "RGB":
            raise ImageError(f"the picture has mode {image.mode}; pass it through load_image first")
        width, height = image.size
        patch, merge, times = self.patch_size, self.merge_size, self.temporal_patch_size
        new_height, new_width = smart_resize(
            height, width, patch * merge, self.min_pixels, self.max_pixels
        )
        pixels = np.asarray(image.resize((new_width, new_height), Image.Resampling.BICUBIC))
        rows, columns = new_height // patch, new_width // patch
        blocks = pixels.reshape(
            rows // merge, merge, patch, columns // merge, merge, patch, CHANNELS
        ).transpose(0, 3, 1, 4, 6, 2, 5)
        values = blocks.reshape(rows * columns, CHANNELS, patch * patch)
        patches = np.empty((rows * columns, CHANNELS, times, patch * patch), np.float32)
        for channel, table in enumerate(self._normalised_levels()):
            normalised = table[values[:, channel]]
            patches[:, channel] = normalised[:, None]
        return PatchedImage(patches.reshape(rows * columns, -1), (rows, columns), (width, height))

    def _normalised_levels(self) -> npt.NDArray[np.float32]:
        """Each channel's normalised value for each of the 256 levels: float32 [3, 256].

        Scaled in float64, then normalised in float32: the roundings of the Hugging Face processor.
        """
        levels = (np.arange(256, dtype=np.float64) * _RESCALE).astype(np.float32)
        mean = np.array(self.image_mean, np.float32)[:, None]
        std = np.array(self.image_std, np.float32)[:, None]
        return (levels - mean) / std


def _three(values: Iterable[Any]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
