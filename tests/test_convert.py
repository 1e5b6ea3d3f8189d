from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from conftest import quiet, to_bundle
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from export.__main__ import app
from export.bundling.graphs import Recipe
from export.bundling.sizes import Sizes
from export.convert import Conversion, convert
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


SHAPES = [seven_groups_untied_wide_vision_heads, wide_text_heads, qwen2_vl_of_odd_shape]


@pytest.mark.parametrize("target", ["onnx-cpu", "onnx-standard"])
@pytest.mark.parametrize("save", SHAPES)
def test_odd_shapes_say_what_transformers_says(save: Save, target: str, tmp_path: Path) -> None:
    model = tiny.ask_briefly(save(tmp_path / "model"))
    bundle = to_bundle(model, tmp_path / "bundle", target=target)
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["logits_error"] <= 1e-4
    assert parity["vision_cosine"] > 0.999999
    assert parity["top1_agreement"] == 1.0
    # Two answers of 64 tokens, and the prompts' own last step, for each of three shapes of picture.
    assert parity["steps"] == 3 * 2 * 65
    assert len({tuple(p["grid"]) for p in parity["pictures"]}) == 3


@pytest.mark.parametrize("save", SHAPES)
def test_primitives_for_older_tensorrt_compute_the_same(save: Save, tmp_path: Path) -> None:
    model = tiny.ask_briefly(save(tmp_path / "model"), context=512)
    bundle = to_bundle(model, tmp_path / "bundle", "fp16", target="tensorrt-10.3")
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["logits_error"] <= 5e-3
    assert parity["vision_cosine"] > 0.9999
    manifest = open_bundle(bundle).manifest
    assert (manifest.cache.dtype, manifest.cache.slots) == ("float16", 512)


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


def test_existing_outputs_are_replaced_only_on_request(
    brief_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    with pytest.raises(ExportError, match="pass --overwrite"):
        to_bundle(brief_checkpoint, bundle)
    (bundle / "stray").write_text("")
    to_bundle(brief_checkpoint, bundle, overwrite=True)
    assert not (bundle / "stray").exists()
    (bundle / "manifest.json").unlink()
    with pytest.raises(ExportError, match="not a bundle"):
        to_bundle(brief_checkpoint, bundle, overwrite=True)


def test_failures_leave_nothing_behind(brief_checkpoint: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(brief_checkpoint, tmp_path / "in"))
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
    brief_checkpoint: Path, tmp_path: Path, file: str, text: str | None, says: str
) -> None:
    broken = Path(shutil.copytree(brief_checkpoint, tmp_path / "in"))
    if text is None:
        (broken / file).unlink()
    else:
        (broken / file).write_text(text)
    with pytest.raises(ExportError, match=says):
        to_bundle(broken, tmp_path / "out")


def test_unknown_targets_and_precisions(brief_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"known are {', '.join(TARGETS)}"):
        find_target("toaster", "fp32")
    with pytest.raises(ExportError, match="'fp3'; it has fp32, int8, int4"):
        find_target("onnx-cpu", "fp3")
    with pytest.raises(ExportError, match="is calibrated: pass --calibration"):
        to_bundle(brief_checkpoint, tmp_path / "out", "int8", target="onnx-standard")


def test_command_line(brief_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["convert", "--model", str(brief_checkpoint), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "qwen2_5_vl for onnx-cpu, fp32" in result.output
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_dry_run_tells_sizes_to_the_byte(brief_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["convert", "--model", str(brief_checkpoint), "--output", str(output), "--dry-run"]
    result = CliRunner().invoke(app, [*arguments, "--precision", "int4"])
    assert result.exit_code == 0, result.output
    assert not output.exists()
    wanted = Conversion(brief_checkpoint, output, precision="int4", allow_degraded=True, steps=8)
    convert(wanted, quiet)
    for name in ("embedding.bin", "vision.onnx.data", "decoder.onnx.data"):
        size = (output / name).stat().st_size
        assert f"{name}: {size / 1e6:,.1f} MB" in result.output


def test_memory_is_that_of_float32_where_a_benchmark_compares_with_it(
    brief_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes(recipe: Recipe) -> Sizes:
        whole = recipe.precision == find_target("onnx-cpu", "fp32")[1]
        return Sizes({"decoder": 10}, 9_000_000_000 if whole else 2_000_000_000)

    monkeypatch.setattr("export.bundling.sizes.sizes_of", sizes)
    arguments = ["convert", "--model", str(brief_checkpoint), "--output", "out", "--dry-run"]
    for more, memory in (([], "2.0 GB"), (["--bench", "b"], "9.0 GB")):
        result = CliRunner().invoke(app, [*arguments, "--precision", "int4", *more])
        assert f"memory: about {memory}" in result.output


def test_a_full_disk_is_told_and_leaves_nothing(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)

    def nearly_full(_: Path) -> object:
        return usage

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(ExportError, match=r"takes 0\.00 GB and .* has 0\.00 GB free; make room"):
        to_bundle(brief_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_refuses_is_told_and_leaves_nothing(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.convert.write_model", full)
    with pytest.raises(ExportError, match=r"cannot make .*No space left"):
        to_bundle(brief_checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """As KeyboardInterrupt is: no Exception."""


def test_what_a_killed_run_had_written_is_taken_up(brief_checkpoint: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def kill(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        if stage == "comparing with the checkpoint":
            raise Killed

    def go_on(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    wanted = Conversion(brief_checkpoint, tmp_path / "out", steps=16)
    with pytest.raises(Killed):
        convert(wanted, kill)
    assert not (tmp_path / "out").exists()
    assert "writing decoder.onnx" in stages
    stages.clear()
    convert(wanted, go_on)
    assert set(stages) == {"comparing with the checkpoint"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_of_another_conversion_left_is_not(
    brief_checkpoint: Path, tmp_path: Path
) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "comparing with the checkpoint":
            raise Killed

    with pytest.raises(Killed):
        convert(Conversion(brief_checkpoint, tmp_path / "out", precision="int4", steps=16), kill)
    convert(Conversion(brief_checkpoint, tmp_path / "out", steps=16), quiet)
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.precision == "fp32"
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["logits_error"] <= 1e-4


def test_hub_ids_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="hub gave none"):
        convert(Conversion("nobody/nothing", tmp_path / "out"), quiet)
    with pytest.raises(ExportError, match="check the path"):
        convert(Conversion("no such folder", tmp_path / "out"), quiet)
