from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from edit_json import REMOVE, edit_json

from idetex_edge import bundle as bundle_module
from idetex_edge.bundle import Manifest, open_bundle, verify
from idetex_edge.errors import BundleError


@pytest.fixture
def copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))


def test_manifest_survives_a_round_trip(tiny_bundle_path: Path) -> None:
    manifest = open_bundle(tiny_bundle_path).manifest
    again = Manifest.from_dict(json.loads(json.dumps(manifest.to_dict())))
    assert again == manifest
    assert manifest.family == "qwen2_5_vl"
    assert manifest.text.mrope_section == (8, 12, 12)
    assert manifest.tokens["<|im_end|>"] in manifest.stop
    assert set(manifest.files) == {p.name for p in tiny_bundle_path.iterdir()} - {"manifest.json"}


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no manifest"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="no manifest"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_malformed_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        open_bundle(copy)


FILE = {"bytes": 1, "sha256": ""}


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("schema_version",), 99, "version 99"),
        (("schema_version",), REMOVE, "version None"),
        (("text",), REMOVE, "text"),
        (("extra",), 1, "extra"),
        (("text", "layers"), "two", "text.layers"),
        (("text", "layers"), True, "text.layers"),
        (("vision", "window"), REMOVE, "window"),
        (("stop",), ["x"], "stop"),
        (("preprocessor", "image_mean"), REMOVE, "image_mean"),
        (("prompts", "score"), REMOVE, "prompts"),
        (("graphs", "vision"), REMOVE, "vision"),
        (("graphs", "vision"), "other.onnx", "other.onnx"),
        (("files", "tokenizer.json"), REMOVE, "tokenizer.json"),
        (("files", "../x"), FILE, "outside"),
        (("files", "/etc/passwd"), FILE, "outside"),
        (("files", "a\\..\\b"), FILE, "outside"),
        (("files", "gone"), FILE, "gone is missing"),
    ],
)
def test_wrong_manifest(copy: Path, place: tuple[str, ...], value: object, says: str) -> None:
    edit_json(copy / "manifest.json", {place: value})
    with pytest.raises(BundleError, match=says) as error:
        open_bundle(copy)
    assert "\n" not in str(error.value)


def test_missing_altered_and_extra_long_files(copy: Path) -> None:
    path = copy / "decoder.onnx.data"
    good = path.read_bytes()
    path.write_bytes(good + b"\0")
    with pytest.raises(BundleError, match="bytes instead of"):
        open_bundle(copy)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered"):
        open_bundle(copy)
    path.unlink()
    with pytest.raises(BundleError, match="missing"):
        open_bundle(copy)


def test_long_files_are_hashed_by_verify_only(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "HASHED_ON_OPEN", 1000)
    path = copy / "decoder.onnx.data"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    bundle = open_bundle(copy)
    with pytest.raises(BundleError, match="altered"):
        verify(bundle)
