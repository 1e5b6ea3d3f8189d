from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import quiet, to_bundle
from PIL import Image
from transformers import AutoModelForImageTextToText

from export import targets
from export.checkpoint import open_checkpoint
from export.convert import Conversion, convert
from export.parity.answers import Answer
from export.parity.pictures import HELD_OUT, MINIMUM, photographs
from export.parity.reference import Reference
from export.parity.report import Parity, PictureParity
from export.targets import EXACT, Limits
from idetex_edge.bundle import Bundle
from idetex_edge.errors import ExportError
from idetex_edge.preprocess import PatchedImage

PICTURE = PictureParity("p", (2, 2), 5e-5, 100, 100, 8, 8, 2, 0.9, 0.9999999)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_streamed_reference_is_transformers(family: str, tmp_path: Path) -> None:
    save = {"qwen2_vl": tiny.save_qwen2_vl, "qwen2_5_vl": tiny.save_qwen2_5_vl}[family]
    folder = save(tmp_path / "model", tied=family == "qwen2_vl")
    checkpoint = open_checkpoint(folder)
    reference = Reference(checkpoint)
    whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    chance = np.random.default_rng(0)
    for rows, columns in ((4, 6), (8, 4)):
        patches = chance.normal(size=(rows * columns, 1176)).astype(np.float32)
        patched = PatchedImage(patches, (rows, columns), (0, 0))
        heads = [[start, *[checkpoint.image_token_id] * (rows * columns // 4)] for start in (5, 6)]
        answers = [
            # Three branches off one head, one too long to share a pass; then another head.
            Answer("a", heads[0], [7], [8, 9]),
            Answer("b", heads[0], [9, 8, 7, 6], []),
            Answer("c", heads[0], [3] * 1020, [4]),
            Answer("d", heads[1], [7], [8]),
        ]
        got = reference.read(answers, patched)
        for answer, logits in zip(answers, got.logits, strict=True):
            tokens = torch.tensor([answer.read])
            with torch.inference_mode():
                expected = whole(
                    input_ids=tokens,
                    pixel_values=torch.from_numpy(patches),
                    image_grid_thw=torch.tensor([[1, rows, columns]]),
                    mm_token_type_ids=(tokens == checkpoint.image_token_id).int(),
                ).logits[0, -answer.steps :]
            np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
        assert got.keys.shape == got.values.shape == (checkpoint.text.layers, 2)
        assert got.keys.min() > 0


def test_the_reference_keeps_no_weights(brief_checkpoint: Path) -> None:
    reference = Reference(open_checkpoint(brief_checkpoint))
    patches = np.zeros((16, 1176), np.float32)
    reference.features(PatchedImage(patches, (4, 4), (0, 0)))
    held = sum(p.untyped_storage().nbytes() for p in reference.parameters())
    assert held < 10_000


def test_figures_of_several_pictures_come_together_by_weight() -> None:
    other = replace(PICTURE, steps=300, agreed=0, boxes=6, box_overlap=0.5, chosen_alike=0)
    both = Parity("t", (PICTURE, other))
    assert both.top1_agreement == 0.25
    assert both.choice_agreement == 0.5
    assert both.box_overlap == pytest.approx(0.6)
    assert Parity("t", (replace(PICTURE, boxes=0, box_overlap=None),)).box_overlap is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"logits_error": 2e-4}, "logits differ from the checkpoint's by 2.00e-04"),
        ({"logits_error": float("nan")}, "logits differ"),
        ({"vision_cosine": 0.99}, "cosine 0.9900000"),
        ({"agreed": 90}, "only 90.0% of tokens"),
        ({"chosen_alike": 6}, "only 75.0% of choices"),
    ],
)
def test_each_limit_is_kept(change: dict[str, float], says: str) -> None:
    assert not Parity("t", (PICTURE,)).shortfalls(EXACT)
    (shortfall,) = Parity("t", (replace(PICTURE, **change),)).shortfalls(EXACT)
    assert says in shortfall


def test_a_degraded_bundle_names_its_worst_layers(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = targets.TARGETS["onnx-cpu"]
    strict = replace(target.precisions["int4"], limits=Limits(1e-3, 0.5, 0.5, 0.5))
    strict_target = replace(target, precisions={"int4": strict})
    monkeypatch.setattr(targets, "TARGETS", {**targets.TARGETS, "onnx-cpu": strict_target})
    wanted = Conversion(brief_checkpoint, tmp_path / "out", precision="int4", steps=8)
    with pytest.raises(ExportError, match=r"worst layers are text\.layers\.\d.*allow-degraded"):
        convert(wanted, quiet)
    assert list(tmp_path.iterdir()) == []
    made = convert(replace(wanted, allow_degraded=True), quiet).bundle
    report = made.file("parity.json").read_text()
    assert '"degraded": [\n    "logits differ' in report
    assert '"worst_layers"' in report


def _folder(folder: Path, count: int, broken: int) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (40 + index, 60), (index, 0, 0)).save(folder / f"{index}.png")
    for index in range(broken):
        (folder / f"broken-{index}.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def test_broken_pictures_are_passed_over_and_counted(tmp_path: Path) -> None:
    found = photographs(_folder(tmp_path / "p", 20, 3), 100)
    assert found.broken == 3
    assert len(found.proof) == HELD_OUT
    assert len(found.calibration) == 20 - HELD_OUT
    assert not {p.name for p in found.proof} & {p.name for p in found.calibration}
    fewer = photographs(tmp_path / "p", 12)
    assert [p.name for p in fewer.calibration] == [p.name for p in found.calibration[:12]]


def test_folders_that_cannot_calibrate(tmp_path: Path) -> None:
    few = _folder(tmp_path / "few", MINIMUM - 1, 2)
    for folder, says in (
        (few, rf"holds {MINIMUM - 1} readable pictures \(2 are broken\)"),
        (_folder(tmp_path / "none", 0, 0), "holds no pictures"),
        (tmp_path / "nowhere", "is not a folder"),
    ):
        with pytest.raises(ExportError, match=says):
            photographs(folder, 32)


def test_proof_pictures_are_of_three_shapes(tiny_bundle: Bundle) -> None:
    found = photographs(None, 0).proof
    grids = {tiny_bundle.manifest.preprocessor.patchify(p.load()).grid for p in found}
    assert len(grids) == 3


def test_a_context_too_short_for_the_prompts_is_told(tmp_path: Path) -> None:
    model = tiny.ask_briefly(tiny.save_qwen2_5_vl(tmp_path / "model"), context=64)
    with pytest.raises(ExportError, match="context of 64"):
        to_bundle(model, tmp_path / "out")
