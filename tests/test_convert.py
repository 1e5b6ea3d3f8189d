from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import to_bundle
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from export.__main__ import app
from export.parity import Parity, PictureParity, photographs
from export.targets import TARGETS, find_target
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.errors import ExportError

Save = Callable[[Path], Path]
OTHER_PATCHES = json.dumps(tiny.PREPROCESSOR | {"patch_size": 16})


def seven_groups_untied_wide_vision_heads(folder: Path) -> Path:
    text = {"hidden_size": 448, "num_attention_heads": 7, "num_key_value_heads": 1}
    return tiny.save_qwen2_5_vl(folder, tied=False, text=text, hidden_size=160, num_heads=2)


def wide_text_heads(folder: Path) -> Path:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [16, 24, 24]}
    text = {"num_attention_heads": 2, "num_key_value_heads": 2, "rope_parameters": rope}
    return tiny.save_qwen2_5_vl(folder, text=text, fullatt_block_indexes=[0, 1, 2])


def qwen2_vl_of_odd_shape(folder: Path) -> Path:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    text = {
        "hidden_size": 224,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rope_parameters": rope,
    }
    return tiny.save_qwen2_vl(folder, tied=False, text=text, embed_dim=160, num_heads=2)


@pytest.mark.parametrize(
    "save", [seven_groups_untied_wide_vision_heads, wide_text_heads, qwen2_vl_of_odd_shape]
)
def test_odd_shapes_say_what_transformers_says(save: Save, tmp_path: Path) -> None:
    bundle = to_bundle(save(tmp_path / "model"), tmp_path / "bundle")
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["logits_error"] <= 1e-4
    assert parity["vision_cosine"] > 0.999999
    assert parity["steps"] == 64
    assert len({tuple(p["grid"]) for p in parity["pictures"]}) == 3


def test_int8_is_small_and_close(
    tiny_checkpoint: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    small = open_bundle(to_bundle(tiny_checkpoint, tmp_path / "int8", "int8")).manifest
    assert small.embedding.dtype == "float16"
    sizes = [sum(f.bytes for f in m.files.values()) for m in (small, tiny_bundle.manifest)]
    assert sizes[0] < 0.4 * sizes[1]
    parity = json.loads((tmp_path / "int8" / "parity.json").read_text())
    assert parity["logits_error"] < 0.05
    assert parity["vision_cosine"] > 0.999


def test_tied_output_matrix_is_stored_once(tiny_bundle_path: Path) -> None:
    table = (tiny_bundle_path / "embedding.bin").read_bytes()
    assert table not in (tiny_bundle_path / "decoder.onnx.data").read_bytes()


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 255, (40 + i, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"broken")
    assert [name for name, _ in photographs(tmp_path)] == ["1.png", "2.png", "3.png"]
    with pytest.raises(ExportError, match="no readable pictures"):
        list(photographs(tmp_path / "nowhere"))


def test_parity_limits() -> None:
    picture = PictureParity("p", (2, 2), 9, 5e-5, 1.0, 0.9999999)
    _, limits = find_target("onnx-cpu", "fp32")
    Parity("t", 64, (picture,)).require(limits)
    for bad in (2e-4, float("nan")):
        with pytest.raises(ExportError, match="logits differ"):
            Parity("t", 64, (replace(picture, logits_error=bad), picture)).require(limits)
    with pytest.raises(ExportError, match=r"cosine 0\.9900000"):
        Parity("t", 64, (replace(picture, vision_cosine=0.99),)).require(limits)


def test_existing_outputs_are_replaced_only_on_request(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    with pytest.raises(ExportError, match="pass --overwrite"):
        to_bundle(tiny_checkpoint, bundle)
    (bundle / "stray").write_text("")
    to_bundle(tiny_checkpoint, bundle, overwrite=True)
    assert not (bundle / "stray").exists()
    (bundle / "manifest.json").unlink()
    with pytest.raises(ExportError, match="not a bundle"):
        to_bundle(tiny_checkpoint, bundle, overwrite=True)


def test_failures_leave_nothing_behind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "in"))
    tensors = load_file(broken / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for change, says in (
        (lambda: tensors.update({name: tensors[name][:-1].clone()}), "does not fit config"),
        (lambda: tensors.pop(name), "has no tensor text.layers.1.mlp.up_proj"),
    ):
        change()
        save_file(tensors, broken / "model.safetensors")
        with pytest.raises(ExportError, match=says):
            to_bundle(broken, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("tokenizer.json", None, "no tokenizer"),
        ("tokenizer.json", "{}", "cannot read"),
        ("preprocessor_config.json", None, "no preprocessor_config"),
        ("preprocessor_config.json", "{}", "preprocessing lacks"),
        ("preprocessor_config.json", OTHER_PATCHES, "disagree on the sizes of patches"),
        ("prompts.json", "{}", "prompts must define"),
    ],
)
def test_incomplete_checkpoints(
    tiny_checkpoint: Path, tmp_path: Path, file: str, text: str | None, says: str
) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "in"))
    if text is None:
        (broken / file).unlink()
    else:
        (broken / file).write_text(text)
    with pytest.raises(ExportError, match=says):
        to_bundle(broken, tmp_path / "out")


def test_unknown_targets_and_precisions(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"known are {', '.join(TARGETS)}"):
        find_target("toaster", "fp32")
    with pytest.raises(ExportError, match="'fp3'; it has fp32, int8"):
        find_target("onnx-cpu", "fp3")


def test_command_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["convert", "--model", str(tiny_checkpoint), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "qwen2_5_vl for onnx-cpu, fp32" in result.output
    assert (tmp_path / "out" / "manifest.json").is_file()
