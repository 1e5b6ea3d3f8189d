"""Numbers beyond FP16's range: found by measurement, and kept in FP32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import quiet
from loud import LAST, save_loud, save_shouting
from onnx.reference import ReferenceEvaluator
from PIL import Image
from skimage import data

from export.bundling.graphs import Recipe
from export.calibration.calibrate import calibrate
from export.calibration.observe import Observation
from export.calibration.overflow import overflowing
from export.calibration.plan import Peaks, Plan
from export.checkpoint import open_checkpoint
from export.convert import Conversion, convert
from export.parity.pictures import photographs
from export.parity.reference import Reference
from export.targets import find_target
from idetex_edge.bundle import Bundle
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.engines.protocol import Floats
from idetex_edge.errors import ExportError


@pytest.fixture(scope="module")
def loud_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_loud(tmp_path_factory.mktemp("loud") / "model")


@pytest.fixture(scope="module")
def shouting_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_shouting(tmp_path_factory.mktemp("shouting") / "model")


def features(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Floats:
    """Encode a picture in numpy's FP16: ONNX Runtime's CPU kernels compute in FP32 instead."""
    manifest = replace(bundle.manifest, target="onnx-standard")
    engine = OnnxEngine(replace(bundle, manifest=manifest))
    graph = onnx.load(bundle.file("vision.onnx"))
    monkeypatch.setattr(engine, "_encoder", ReferenceEvaluator(graph))
    picture = Image.fromarray(data.astronaut()).resize((112, 56))
    return engine.encode(manifest.preprocessor.patchify(picture))


def test_what_comes_near_the_end_of_half_is_found() -> None:
    seen = Observation()
    chance = np.random.default_rng(0)
    for name, taken, given in (("a", 1.0, 16_000.0), ("b", 17_000.0, 1.0), ("c", 1.0, np.inf)):
        seen.see(name, torch.full((3, 2), taken), torch.full((3, 2), -given), chance)
    found = overflowing(seen)
    assert found == {"b": Peaks(17_000.0, 1.0), "c": Peaks(1.0, np.inf)}
    says = "takes up to 1.7e+04 and gives up to 1, where FP16 ends at 65504"
    assert Plan(wide=found).kept["b"] == says


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_matrices_that_overflow_stay_in_fp32(
    loud_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Conversion(loud_checkpoint, tmp_path / "out", "tensorrt-10.3", "fp16", steps=16)
    made = convert(wanted, quiet)
    assert list(made.kept) == [LAST]
    assert "FP16 ends at 65504" in made.kept[LAST]
    parity = json.loads(made.bundle.file("parity.json").read_text())
    assert parity["logits_error"] < 0.02
    assert parity["vision_cosine"] > 0.999
    graph = onnx.load(made.bundle.file("vision.onnx"), load_external_data=False).graph
    types = {
        weight.name.removesuffix(".float32"): weight.data_type
        for weight in graph.initializer
        if weight.name.endswith(".float32")
    }
    assert types == {LAST: onnx.TensorProto.FLOAT}
    plan = Plan.load(made.bundle.file("calibration.json"))
    assert {name: str(peaks) for name, peaks in plan.wide.items()} == made.kept
    assert plan.pictures == 3
    replace(plan, wide={}).save(tmp_path / "ranges.json")
    blind = replace(wanted, output=tmp_path / "blind", ranges=tmp_path / "ranges.json")
    assert np.isfinite(features(made.bundle, monkeypatch)).all()
    assert not np.isfinite(features(convert(blind, quiet).bundle, monkeypatch)).all()


def test_values_that_attention_in_half_cannot_read_are_refused(
    shouting_checkpoint: Path, tmp_path: Path
) -> None:
    says = (
        r"layers\.1\.self_attn\.v_proj gives attention up to .* ends at 65504; convert for onnx-cpu"
    )
    wanted = Conversion(shouting_checkpoint, tmp_path / "out", "tensorrt-10.3", "fp16", steps=4)
    with pytest.raises(ExportError, match=says) as told:
        convert(wanted, quiet)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
    # In FP32 it is as good as any.
    whole = convert(replace(wanted, target="onnx-standard", precision="fp32"), quiet).bundle
    assert json.loads(whole.file("parity.json").read_text())["logits_error"] <= 1e-4


def test_what_fp16_cannot_hold_is_measured_for_every_target_and_counts_for_some(
    loud_checkpoint: Path, shouting_checkpoint: Path, tmp_path: Path
) -> None:
    """So that ranges of one target can be used for another."""
    pictures = photographs(None, 0).proof[:1]

    def plan(folder: Path) -> Plan:
        checkpoint = open_checkpoint(folder)
        recipe = Recipe(checkpoint, *find_target("onnx-standard", "fp32"), Plan())
        return calibrate(recipe, Reference(checkpoint), pictures, 4, quiet)

    found = plan(loud_checkpoint)
    assert list(found.wide) == [LAST]
    for target, kept in (("onnx-standard", []), ("tensorrt-10.3", [LAST])):
        recipe = Recipe(
            open_checkpoint(loud_checkpoint), *find_target(target, "int8-weights"), found
        )
        assert list(recipe.applied.kept) == kept
    plan(shouting_checkpoint).save(tmp_path / "ranges.json")
    wanted = Conversion(shouting_checkpoint, tmp_path / "out", "tensorrt-rtx", "fp16")
    with pytest.raises(ExportError, match="v_proj gives attention up to"):
        convert(replace(wanted, ranges=tmp_path / "ranges.json"), quiet)
