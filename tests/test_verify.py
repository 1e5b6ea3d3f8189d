from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import run
from edit_json import edit_json

from idetex_edge import smoke
from idetex_edge.bundle import Manifest, file_facts, open_bundle


@pytest.fixture
def copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))


def reseal(bundle: Path, name: str) -> None:
    """Make a bundle's manifest agree with a file that was changed."""
    facts = file_facts(bundle / name)
    entry = {"bytes": facts.bytes, "sha256": facts.sha256}
    edit_json(bundle / "manifest.json", {("files", name): entry})


def test_a_whole_bundle_passes(tiny_bundle_path: Path) -> None:
    ran = run("verify", tiny_bundle_path)
    assert ran.code == 0
    count = len(open_bundle(tiny_bundle_path).manifest.files)
    assert f"{count} files are as they were made" in ran.out
    assert "smoke check is passed on onnx:cpu" in ran.out


def test_an_altered_file_is_found(copy: Path) -> None:
    path = copy / "decoder.onnx.data"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    ran = run("verify", copy)
    assert ran.code == 1
    assert "decoder.onnx.data was altered" in ran.error


def test_a_model_that_computes_something_else_is_found(copy: Path) -> None:
    noted = json.loads((copy / smoke.SMOKE).read_text())["level_probabilities"]
    assert sum(noted) == pytest.approx(1)
    (copy / smoke.SMOKE).write_text(json.dumps({"level_probabilities": noted[::-1]}))
    reseal(copy, smoke.SMOKE)
    ran = run("verify", copy)
    assert ran.code == 1
    assert "smoke check differs" in ran.error


def test_bundles_without_figures_and_for_other_hardware(copy: Path) -> None:
    data = json.loads((copy / "manifest.json").read_text())
    del data["files"][smoke.SMOKE]
    del data["cache"], data["engines"]
    assert Manifest.from_dict(data).cache.dtype == "float32"
    (copy / "manifest.json").write_text(json.dumps(data))
    ran = run("verify", copy)
    assert ran.code == 0
    assert "notes no figures" in ran.out
    edit_json(copy / "manifest.json", {("target",): "tensorrt-11"})
    ran = run("verify", copy)
    assert ran.code == 0
    assert "smoke check was not run" in ran.out
    assert run("verify", copy, "--engine", "onnx").code == 1


def test_only_bundles_with_a_recipe_can_be_built(tiny_bundle_path: Path, tmp_path: Path) -> None:
    assert "needs no engines" in run("build", tiny_bundle_path).error
    assert "no bundle folder" in run("build", tmp_path / "nowhere").error
    assert "no bundle folder" in run("verify", tmp_path / "nowhere").error
