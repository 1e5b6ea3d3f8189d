import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from skimage import data, img_as_float32

from idetex_edge.errors import ImageError
from idetex_edge.image import MAX_PIXELS, MIN_SIDE, load_image

PHOTO = Image.fromarray(data.astronaut()[:120, :200])


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


def same(left: Image.Image, right: Image.Image, tolerance: int = 0) -> bool:
    assert left.mode == right.mode == "RGB"
    assert left.size == right.size
    difference = np.abs(np.asarray(left, np.int16) - np.asarray(right, np.int16))
    return int(difference.max()) <= tolerance


def test_the_same_picture_from_every_kind_of_source(tmp_path: Path) -> None:
    png = encoded(PHOTO, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(png)
    used = io.BytesIO(png)
    used.read()
    for source in (path, str(path), png, bytearray(png), memoryview(png), used, PHOTO):
        assert same(load_image(source), PHOTO)
    assert same(load_image(np.asarray(PHOTO)), PHOTO)
    with path.open("rb") as stream:
        assert same(load_image(stream), PHOTO)


def test_a_pipe_is_read_though_it_cannot_seek() -> None:
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, png), os.close(writer)))
    png = encoded(PHOTO, "PNG")
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        assert same(load_image(stream), PHOTO)
    thread.join()


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
def test_formats_agree_with_pillow(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    file = encoded(PHOTO, file_format, **options)
    assert same(load_image(file), Image.open(io.BytesIO(file)).convert("RGB"))


def test_a_fresh_process_knows_every_format(tmp_path: Path) -> None:
    path = tmp_path / "photo.webp"
    path.write_bytes(encoded(PHOTO, "WEBP"))
    program = f"from idetex_edge.image import load_image; print(load_image({str(path)!r}).size)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"(200, 120)"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(PHOTO, file_format, exif=exif)
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    got = load_image(file)
    assert got.size == ((120, 200) if orientation >= 5 else (200, 120))
    assert same(got, want)
    assert same(load_image(got), want)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("exif", [b"MM\0*\xff\xff\xff\xff\x01\x12", b"no TIFF at all"])
def test_a_damaged_exif_block_does_not_hide_the_picture(exif: bytes) -> None:
    file = encoded(PHOTO, "PNG", exif=b"Exif\0\0" + exif)
    assert same(load_image(file), PHOTO)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (120, 1))
    picture = PHOTO.convert("L").convert("LA") if mode == "LA" else PHOTO.convert("RGBA")
    picture.putalpha(Image.fromarray(alpha))
    colours = np.asarray(PHOTO.convert("L").convert("RGB") if mode == "LA" else PHOTO, float)
    weight = alpha[:, :, None] / 255
    want = Image.fromarray(np.rint(colours * weight + 255 * (1 - weight)).astype(np.uint8))
    assert same(load_image(encoded(picture, "PNG")), want, tolerance=1)
    assert same(load_image(picture), want, tolerance=1)
    if mode == "RGBA":
        assert same(load_image(np.asarray(picture)), want, tolerance=1)


def test_premultiplied_alpha_is_laid_over_white() -> None:
    picture = PHOTO.convert("RGBA")
    picture.putalpha(128)
    assert same(load_image(picture.convert("RGBa")), load_image(picture), tolerance=2)
    gray = picture.convert("LA")
    assert same(load_image(gray.convert("La")), load_image(gray), tolerance=2)


def test_palettes_with_and_without_transparency() -> None:
    palette = PHOTO.quantize(16)
    assert same(load_image(encoded(palette, "PNG")), palette.convert("RGB"))
    indices = np.asarray(palette)
    hidden = int(indices[0, 0])
    want = np.asarray(palette.convert("RGB")).copy()
    want[indices == hidden] = 255
    for file_format in ("PNG", "GIF"):
        file = encoded(palette, file_format, transparency=hidden)
        assert same(load_image(file), Image.fromarray(want)), file_format


def test_a_transparent_colour_is_white() -> None:
    pixels = np.asarray(PHOTO).copy()
    pixels[:40] = (1, 2, 3)
    want = pixels.copy()
    want[:40] = 255
    file = encoded(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3))
    assert same(load_image(file), Image.fromarray(want))


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk(file_format: str) -> None:
    file = encoded(PHOTO.convert("CMYK"), file_format)
    assert same(load_image(file), Image.open(io.BytesIO(file)).convert("RGB"))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 100 * 64).round().astype(np.uint16).reshape(100, 64)
    gray = np.rint(values / 257).astype(np.uint8)
    want = Image.fromarray(np.stack([gray] * 3, axis=-1))
    picture = Image.fromarray(values)
    pgm = b"P5 64 100 65535\n" + values.astype(">u2").tobytes()
    for source in (encoded(picture, "PNG"), encoded(picture, "TIFF"), pgm, picture, values):
        assert same(load_image(source), want)
    assert same(load_image(values.astype(">u2")), want)


def test_grayscale_and_one_bit() -> None:
    gray = Image.fromarray(data.camera()[:100, :100])
    assert same(load_image(encoded(gray, "PNG")), gray.convert("RGB"))
    assert same(load_image(np.asarray(gray)), gray.convert("RGB"))
    bits = gray.convert("1")
    assert same(load_image(encoded(bits, "PNG")), bits.convert("RGB"))
    assert set(np.unique(np.asarray(load_image(bits)))) == {0, 255}


def test_float_arrays() -> None:
    assert same(load_image(img_as_float32(np.asarray(PHOTO))), PHOTO)
    assert same(load_image(np.asarray(PHOTO) / 255), PHOTO)
    overshot = np.asarray(PHOTO) / 255
    overshot[0, 0] = np.nextafter(1, 2)
    assert np.asarray(load_image(overshot))[0, 0].tolist() == [255, 255, 255]
    floats = Image.fromarray(img_as_float32(data.camera()[:64, :64]))
    assert np.array_equal(np.asarray(load_image(floats))[:, :, 0], data.camera()[:64, :64])


def test_the_first_of_several_frames() -> None:
    frames = [PHOTO.quantize(64), ImageOps.invert(PHOTO).quantize(64)]
    for file_format in ("GIF", "TIFF", "PNG"):
        file = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert same(load_image(file), frames[0].convert("RGB")), file_format


def test_the_callers_picture_is_left_alone() -> None:
    assert load_image(PHOTO) is PHOTO
    exif = Image.Exif()
    exif[0x0112] = 6
    source = Image.open(io.BytesIO(encoded(PHOTO, "JPEG", exif=exif)))
    load_image(source)
    assert source.size == (200, 120)
    assert source.getexif()[0x0112] == 6
    array = np.asarray(PHOTO).copy()
    loaded = load_image(array)
    array[:] = 0
    assert same(loaded, PHOTO)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 1), "too small"),
        ((MIN_SIDE - 1, 300), "too small"),
        ((300, MIN_SIDE - 1), "too small"),
        ((30_000, 10), "too narrow"),
        ((10, 30_000), "too narrow"),
        ((1601, 8), "too narrow"),
    ],
)
def test_sizes_that_cannot_be_judged(size: tuple[int, int], reason: str) -> None:
    picture = Image.new("RGB", size)
    for source in (picture, encoded(picture, "PNG"), np.asarray(picture), png_header(*size)):
        with pytest.raises(ImageError, match=reason):
            load_image(source)


def test_the_smallest_and_the_narrowest_that_can() -> None:
    assert load_image(Image.new("RGB", (MIN_SIDE, MIN_SIDE))).size == (MIN_SIDE, MIN_SIDE)
    assert load_image(encoded(Image.new("L", (1600, 8)), "PNG")).size == (1600, 8)


def test_zero_size() -> None:
    for source in (np.zeros((0, 10, 3), np.uint8), Image.new("RGB", (0, 0)), png_header(0, 0)):
        with pytest.raises(ImageError):
            load_image(source)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        pytest.fail("the bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(ImageError, match=f"over the limit of {MAX_PIXELS}"):
        load_image(png_header(60_000, 60_000))
    with pytest.raises(ImageError, match="raise max_pixels"):
        load_image(encoded(PHOTO, "PNG"), max_pixels=200 * 120 - 1)


def test_our_limit_replaces_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = encoded(PHOTO, "PNG")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(file))
    assert same(load_image(file, max_pixels=200 * 120), PHOTO)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_truncated_files(file_format: str, kept: float) -> None:
    options = {"compression": "tiff_lzw"} if file_format == "TIFF" else {}
    file = encoded(PHOTO, file_format, **options)
    with pytest.raises(ImageError) as caught:
        load_image(file[: int(len(file) * kept)])
    assert "\n" not in str(caught.value)


def test_what_is_not_a_picture(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture\n")
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ImageError, match=r"'.*notes\.jpg' is not a picture"):
        load_image(text)
    with pytest.raises(ImageError, match="is empty"):
        load_image(empty)
    for length in range(1, 16):
        with pytest.raises(ImageError, match="is not a picture"):
            load_image(b"x" * length)
    with pytest.raises(ImageError, match="there is no file"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot open"):
        load_image("nul\0byte.jpg")
    with pytest.raises(ImageError, match="cannot open"):
        load_image("x" * 5000 + ".jpg")
    with pytest.raises(ImageError, match="cannot read a picture from int"):
        load_image(cast("bytes", 3))
    with pytest.raises(ImageError, match="the given file"):
        load_image(cast("io.BytesIO", io.StringIO("text")))


def test_a_program_in_postscript_is_not_run() -> None:
    eps = encoded(PHOTO, "EPS")
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    with pytest.raises(ImageError, match="is not a picture that can be read"):
        load_image(eps)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 20, 20), np.uint8), "channels last"),
        (np.zeros(20, np.uint8), "shape"),
        (np.zeros((20, 20, 2), np.uint8), "shape"),
        (np.zeros((20, 20), np.int64), "int64"),
        (np.zeros((20, 20), bool), "bool"),
        (np.full((20, 20), 255.0), "0..1"),
        (np.full((20, 20), np.nan), "0..1"),
        (np.full((20, 20), -0.5), "0..1"),
    ],
)
def test_arrays_that_are_no_pictures(array: npt.NDArray[np.generic], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(array)


def test_thirty_two_bit_integers() -> None:
    with pytest.raises(ImageError, match="32-bit"):
        load_image(Image.fromarray(np.full((20, 20), 1 << 20, np.int32)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_never_escape_as_other_errors() -> None:
    generator = np.random.default_rng(0)
    refused = 0
    for file_format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        file = encoded(PHOTO.resize((40, 30)), file_format)
        for _ in range(40):
            damaged = bytearray(file)
            for place in generator.integers(0, len(file), 8):
                damaged[place] = generator.integers(0, 256)
            try:
                load_image(bytes(damaged))
            except ImageError:
                refused += 1
    assert refused > 40
