"""Read a picture from whatever the caller has, as 8-bit RGB, upright, or say why not."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from idetex_edge.errors import ImageError

ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | npt.NDArray[Any]
)
"""What `load_image` takes."""

MAX_PIXELS: Final = 180_000_000
"""Default limit on width x height, checked from the header before anything is decoded."""

MIN_SIDE: Final = 8
"""Shortest side, in pixels, that can be judged: one block of a JPEG."""

MAX_ASPECT: Final = 200
"""Largest ratio of the sides; the Qwen2-VL resize refuses what lies above it."""

# Reading EPS starts Ghostscript on the file's program.
_REFUSED_FORMATS: Final = frozenset({"EPS"})

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as RGB, 8 bits a channel, with its EXIF orientation applied.

    source: a path; the bytes of a file or an open binary file (read from its start); a PIL
        image; or an array [H, W], [H, W, 3] or [H, W, 4] of uint8, uint16, or floats 0..1.
    max_pixels: refuse pictures of more pixels than this, before decoding them. It replaces
        Pillow's global limit (which tiled TIFF and ICO files still meet at twice its value).

    Transparency is laid over white, 16 bits are scaled to 8, and of several frames the first is
    taken (of a PIL image, the current one). A PIL image that is upright RGB is returned as it is.

    Raises ImageError when the source is missing, not a picture, truncated, larger than
    `max_pixels`, has a side under `MIN_SIDE` pixels, or is over `MAX_ASPECT` times as long as wide.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, "the given picture", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(BytesIO(source), "the given data", max_pixels)
    if hasattr(source, "read"):
        return _from_stream(source, "the given file", max_pixels)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}; "
        "pass a path, bytes, a PIL image or a numpy array"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _from_path(source: str | os.PathLike[str], max_pixels: int) -> Image.Image:
    name = repr(os.fspath(source))
    path = Path(source)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; give the pictures in it")
        with path.open("rb") as stream:
            return _from_stream(stream, name, max_pixels)
    except FileNotFoundError:
        raise ImageError(f"there is no file {name}; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else _one_line(error)
        raise ImageError(f"cannot open {name}: {reason}; check the path") from error


def _from_stream(stream: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    try:
        if stream.seekable():
            stream.seek(0)
        else:
            stream = BytesIO(stream.read())
        prefix = stream.read(16)
        image = _identify(stream, prefix) if prefix else None
    except Exception as error:  # plugins meet broken headers with errors of any kind
        raise ImageError(
            f"{name} cannot be read as a picture: {_one_line(error)}; it may be damaged"
        ) from error
    if not prefix:
        raise ImageError(f"{name} is empty; give a picture, such as a JPEG or PNG file")
    if image is None:
        raise ImageError(
            f"{name} is not a picture that can be read, or is cut short; "
            "use JPEG, PNG, WebP, TIFF or BMP"
        )
    return _decode(image, name, max_pixels)


def _identify(stream: IO[bytes], prefix: bytes) -> ImageFile.ImageFile | None:
    """Find the format and read the header, as Image.open does but without its global limit."""
    tried: set[str] = set(_REFUSED_FORMATS)
    for register_formats in (Image.preinit, Image.init):
        register_formats()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                # A string says why this Pillow cannot read files of this format.
                if accept is None or accept(prefix) is True:
                    stream.seek(0)
                    return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
    return None


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    short, long = min(size), max(size)
    if short < MIN_SIDE:
        raise ImageError(
            f"{name} is {width} x {height} pixels, too small to be judged; "
            f"both sides must have at least {MIN_SIDE}"
        )
    if long > MAX_ASPECT * short:
        raise ImageError(
            f"{name} is {width} x {height} pixels, too narrow a strip to be judged; "
            f"crop it to a ratio of at most {MAX_ASPECT}"
        )
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height} pixels, over the limit of "
            f"{max_pixels}; shrink it, or raise max_pixels if you trust it"
        )


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image.size, name, max_pixels)
    try:
        image.load()
        rgb = _to_rgb(_turn_upright(image))
    except ImageError as error:
        raise ImageError(f"{name} {error}") from None
    except Exception as error:  # decoders meet broken files with errors of any kind
        raise ImageError(
            f"{name} cannot be decoded: {_one_line(error)}; it may be truncated or damaged"
        ) from error
    # Icon files learn their true size only while they are decoded.
    _check_size(rgb.size, name, max_pixels)
    if rgb is not image:
        # The orientation has been applied: leave nothing that would apply it once more.
        rgb.info.clear()
    return rgb


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation in which a picture is seen: 1 (as stored) to 8."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block does not make the picture unreadable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _turn_upright(image: Image.Image) -> Image.Image:
    method = _UPRIGHT.get(orientation_of(image))
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(image))).convert("RGB")
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("has 32-bit values; save it with 8 or 16 bits a channel")
        return Image.fromarray(_from_16_bits(values)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_floats(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        # La and RGBa hold premultiplied colours, which convert only to LA and RGBA.
        rgba = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _from_floats(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    # Filters overshoot 1.0 by rounding. The comparison is false for NaN too.
    if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
        raise ImageError("has float values outside 0..1; scale them to 0..1, or pass uint8")
    return np.rint(np.clip(values, 0, 1).astype(np.float32) * 255).astype(np.uint8)


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    name = "the given array"
    shape = cast("tuple[int, ...]", array.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
        raise ImageError(
            f"{name} has shape {list(shape)}; pass [height, width], [height, width, 3] or "
            "[height, width, 4], channels last"
        )
    _check_size((shape[1], shape[0]), name, max_pixels)
    kind = (array.dtype.kind, array.dtype.itemsize)
    if kind == ("u", 1):
        values = array
    elif kind == ("u", 2):
        values = _from_16_bits(array)
    elif kind[0] == "f":
        try:
            values = _from_floats(array)
        except ImageError as error:
            raise ImageError(f"{name} {error}") from None
    else:
        raise ImageError(f"{name} holds {array.dtype}; pass uint8, uint16, or floats 0..1")
    return _to_rgb(Image.fromarray(np.ascontiguousarray(values)))
