"""A converted checkpoint, taken to a machine that has the wheel and its dependencies alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bare import bare_site, run_bare
from PIL import Image
from skimage import data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_site(tmp_path_factory.mktemp("machine") / "site")


def test_the_workshop_is_not_there(site: Path) -> None:
    for name in ("torch", "transformers", "export", "onnx", "skimage", "pytest"):
        ran = run_bare(site, "-c", f"import {name}")
        assert f"No module named '{name}'" in ran.stderr
    imported = run_bare(site, "-c", "import idetex_edge; print(idetex_edge.__file__)")
    assert imported.stdout.startswith(str(site))


def test_a_converted_checkpoint_assesses_a_picture(
    site: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_bundle_path, tmp_path / "moved")
    photo = tmp_path / "coffee.png"
    Image.fromarray(data.coffee()).save(photo)
    verified = run_bare(site, "-m", "idetex_edge", "verify", moved)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "smoke check is passed" in verified.stdout
    ran = run_bare(site, "-m", "idetex_edge", "assess", photo, "--bundle", moved, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert 0 <= found["score"] <= 100
    assert found["description"] is not None
