"""The examples run and do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prompted import with_prompts
from skimage import data

from idetex_edge import Assessor

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("example") / "nano", "nano", 400)


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_camera_loop_raises_one_alarm(bundle: Path, tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(data.coffee()).save(tmp_path / f"{number}.png")
    score = Assessor(bundle).score(tmp_path / "0.png").score
    out = run("camera_loop.py", "--folder", tmp_path, "--bundle", bundle, "--limit", f"{score + 1}")
    assert [float(s) for s in re.findall(r"^frame \d: (.*)$", out, re.M)] == [round(score, 1)] * 5
    assert out.count("alarm") == 1
    out = run("camera_loop.py", "--folder", tmp_path, "--bundle", bundle, "--limit", f"{score - 1}")
    assert "alarm" not in out


def test_the_gate_lets_nothing_worse_through(bundle: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 60, data.coffee().shape)
    photo, output = tmp_path / "noisy.png", tmp_path / "restored.png"
    Image.fromarray(np.clip(data.coffee() + noise, 0, 255).astype(np.uint8)).save(photo)
    run("restoration_gate.py", photo, "--output", output, "--bundle", bundle)
    assessor = Assessor(bundle)
    assert assessor.score(output).score >= assessor.score(photo).score


def test_the_notebook_runs() -> None:
    notebook = json.loads((EXAMPLES / "quality.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not c["outputs"] for c in notebook["cells"] if c["cell_type"] == "code")
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "quality.ipynb", "exec"), names)
    assert "answer" in names
