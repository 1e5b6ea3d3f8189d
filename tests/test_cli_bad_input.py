"""Whatever is wrong with the input: one line that says so, never a traceback, no half a file."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import pytest
from command import run
from edit_json import edit_json
from PIL import Image
from prompted import with_prompts
from skimage import data

ASK = ["--question", "Which?"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("cli") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "coffee.jpg"
    Image.fromarray(data.coffee()).save(path)
    return path


@pytest.fixture
def broken(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be broken."""
    return Path(shutil.copytree(bundle, tmp_path / "broken"))


def png(width: int, height: int) -> bytes:
    """A PNG that says it has that size, and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def write(path: Path, kind: str, photo: Path) -> None:
    match kind:
        case "text":
            path.write_text("This is not a picture.")
        case "truncated":
            path.write_bytes(photo.read_bytes()[:9000])
        case "empty":
            path.write_bytes(b"")
        case "zero size":
            path.write_bytes(png(0, 0))
        case "1x1":
            Image.new("RGB", (1, 1)).save(path)
        case "strip":
            Image.new("RGB", (30_000, 10)).save(path)
        case "bomb":
            path.write_bytes(png(60_000, 60_000))
        case "folder":
            path.mkdir()
        case _:
            pass


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "not a picture"),
        ("truncated", "truncated"),
        ("empty", "empty"),
        ("zero size", "x.png"),
        ("1x1", "1 x 1 pixels, too small"),
        ("strip", "30000 x 10 pixels, too narrow"),
        ("bomb", "over the limit of 180000000"),
        ("missing", "there is no file"),
        ("folder", "no picture in"),
    ],
)
def test_pictures(bundle: Path, photo: Path, tmp_path: Path, kind: str, says: str) -> None:
    path, overlay = tmp_path / "x.png", tmp_path / "overlay.png"
    write(path, kind, photo)
    before = sorted(tmp_path.iterdir())
    for command in (["assess", "--overlay", overlay], ["score"], ["ground"], ["describe"]):
        ran = run(*command, path, bundle=bundle)
        assert (ran.code, ran.out) == (1, "")
        assert says in ran.error
        assert "x.png" in ran.error
        ran = run(*command, path, "--json", bundle=bundle)
        assert (ran.code, ran.rows) == (1, [{"path": str(path), "error": ran.error}])
    assert sorted(tmp_path.iterdir()) == before


def test_the_pixel_limit_can_be_set(bundle: Path, photo: Path) -> None:
    ran = run("score", photo, "--max-pixels", "239999", bundle=bundle)
    assert "600 x 400 = 240000 pixels, over the limit of 239999" in ran.error
    assert run("score", photo, "--max-pixels", "240000", bundle=bundle).code == 0


@pytest.mark.parametrize("overlay", ["gone/overlay.png", "coffee.jpg/overlay.png", "overlay.xyz"])
def test_overlays_that_cannot_be_written(
    bundle: Path, photo: Path, tmp_path: Path, overlay: str
) -> None:
    shutil.copy(photo, tmp_path)
    ran = run("assess", tmp_path / "coffee.jpg", "--overlay", tmp_path / overlay, bundle=bundle)
    assert (ran.code, ran.out) == (1, "")
    assert overlay in ran.error
    assert list(tmp_path.iterdir()) == [tmp_path / "coffee.jpg"]


def test_overlays_for_which_no_folder_can_be_made(bundle: Path, photo: Path) -> None:
    ran = run("assess", photo, photo.parent, "--overlay", photo / "overlays", bundle=bundle)
    assert (ran.code, ran.out) == (1, "")
    assert "cannot make the folder" in ran.error


def test_overlays_never_overwrite_a_picture(bundle: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(data.coffee()).save(tmp_path / name)
    before = (tmp_path / "b.png").read_bytes()
    (tmp_path / "sub").mkdir()
    for given, overlay in (("", ""), ("b.png", "b.png"), ("b.png", "sub/../b.png")):
        ran = run("assess", tmp_path / given, "--overlay", tmp_path / overlay, bundle=bundle)
        assert (ran.code, ran.out) == (1, "")
        assert "would overwrite" in ran.error
    assert (tmp_path / "b.png").read_bytes() == before


def spoil_bundle(folder: Path, how: str) -> None:
    weights = folder / "vision.onnx.data"
    match how:
        case "missing":
            weights.unlink()
        case "altered":
            content = bytearray(weights.read_bytes())
            content[len(content) // 2] ^= 1
            weights.write_bytes(content)
        case "extra long":
            weights.write_bytes(weights.read_bytes() + b"\0")
        case "version":
            edit_json(folder / "manifest.json", {("schema_version",): 2})
        case "not json":
            (folder / "manifest.json").write_text("{")
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "vision.onnx.data is missing"),
        ("altered", "vision.onnx.data was altered"),
        ("extra long", "vision.onnx.data has"),
        ("version", "schema version 2"),
        ("not json", "manifest.json"),
        ("no manifest", "has no manifest.json"),
        ("gone", "there is no bundle folder"),
    ],
)
def test_bundles(broken: Path, photo: Path, how: str, says: str) -> None:
    spoil_bundle(broken, how)
    for command in (["assess", photo], ["score", photo, "--json"], ["info"], ["demo"]):
        ran = run(*command, bundle=broken)
        assert (ran.code, ran.out) == (1, "")
        assert says in ran.error


def test_unknown_engine(bundle: Path, photo: Path) -> None:
    for command in (["score", photo], ["info"], ["demo"]):
        ran = run(*command, "--engine", "abacus", bundle=bundle)
        assert (ran.code, ran.out) == (1, "")
        assert "unknown engine 'abacus'; known are" in ran.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask", "-q", " "], "the question is empty"),
        (["describe", "--type", "rust"], "unknown distortion 'rust'"),
        (["ask", *ASK, "--choice", "Noise"], "not 1"),
        (["ask", *ASK, *["--choice", "Noise"] * 27], "not 27"),
        (["ask", "-q", "", "-c", "Noise", "-c", "Blur"], "the question is empty"),
        (["ground", "--type", "rust"], "unknown distortion 'rust'"),
        (["ground", "--type", "noise", "--region", "0,0,9,9"], "--region and --type"),
        (["ground", "--region", "0,0,9"], "--region '0,0,9' is not X1,Y1,X2,Y2"),
        (["ground", "--region", "a,b,c,d"], "--region 'a,b,c,d'"),
    ],
)
def test_calls_that_make_no_sense(
    bundle: Path, photo: Path, arguments: list[str], says: str
) -> None:
    ran = run(*arguments, photo, bundle=bundle)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error


def test_a_region_outside_one_of_the_pictures(bundle: Path, photo: Path, tmp_path: Path) -> None:
    Image.fromarray(data.coffee()[:100]).save(tmp_path / "low.png")
    given = (tmp_path / "low.png", photo)
    ran = run("ground", *given, "--region", "0,0,300,300", "--json", bundle=bundle)
    assert ran.code == 1
    assert "inside the 600 x 100 picture" in ran.error
    assert [set(row) for row in ran.rows] == [{"path", "error"}, {"path", "distortions"}]


@pytest.mark.parametrize(
    "arguments", [["score"], ["scale", "x"], ["score", "x", "--threads", "0"], ["ask", "x"], []]
)
def test_usage(arguments: list[str]) -> None:
    assert run(*arguments).code == 2
