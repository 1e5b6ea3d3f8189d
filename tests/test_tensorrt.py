from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from attention_probe import builds
from conftest import quiet, to_bundle
from edit_json import edit_json
from test_convert import qwen2_vl_of_odd_shape, seven_groups_untied_wide_vision_heads
from typer.testing import CliRunner

from export.__main__ import app
from export.bundling.graphs import Recipe
from export.bundling.manifest import describe
from export.bundling.sizes import supposed
from export.bundling.write import seal, write_json, write_model
from export.calibration.plan import Plan
from export.checkpoint import open_checkpoint
from export.convert import Conversion, convert
from export.targets import TARGETS
from export.tensorrt.engines import build_recipe
from export.tensorrt.kernels import Attention
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import load_engine
from idetex_edge.errors import BundleError, EngineError, ExportError
from idetex_edge.tensorrt.apart import build_apart
from idetex_edge.tensorrt.builders import load_builder
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import BUILD, load_recipe
from idetex_edge.tensorrt.report import EngineReport, read_messages

NANO = Path(__file__).parents[1] / "checkpoints" / "nano"


@pytest.fixture
def rtx() -> object:
    """TensorRT-RTX, which builds engines without a GPU, where it can be installed."""
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def unproven(model: Path, folder: Path, target: str, precision: str) -> Bundle:
    """Write a bundle as conversion does, without its proof, every INT8 step the same."""
    found = TARGETS[target]
    recipe = Recipe(open_checkpoint(model), found, found.precisions[precision], Plan())
    recipe = replace(recipe, plan=supposed(recipe))
    folder.mkdir()
    write_model(recipe, folder, quiet)
    manifest = describe(recipe, "model", target, precision)
    build = build_recipe(recipe, manifest)
    assert build is not None
    write_json(folder / BUILD, build.to_dict())
    return seal(folder, manifest)


def built(bundle: Bundle) -> dict[str, EngineReport]:
    """Every engine, by the builder that is to be had here: it reads the others' graphs too."""
    trt, reports = load_builder(bundle.manifest.target), dict[str, EngineReport]()
    for name, engine in load_recipe(bundle).engines.items():
        into, shares = bundle.file(engine.file), list[float]()
        reports[name] = build_apart(trt, bundle, engine, Limits(2**28), into, shares.append)
        assert into.stat().st_size == reports[name].bytes > 10_000
        assert 0 < shares[0] < shares[-1] <= 1
    return reports


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-weights", "int4"])
def test_engines_of_nano_have_native_layers(precision: str, tmp_path: Path, rtx: object) -> None:
    bundle = unproven(NANO, tmp_path / "bundle", "tensorrt-rtx", precision)
    recipe = load_recipe(bundle)
    # Pictures up to 224 and 448 pixels square, and up to nano's largest; prefill and decoding.
    assert [len(engine.profiles) for engine in recipe.engines.values()] == [3, 2]
    reports = built(bundle)
    vision, decoder = reports["vision"], reports["decoder"]
    assert decoder.operators["KV_CACHE_UPDATE"] == 2 * 6
    assert decoder.operators["ATTENTION_INPUT"] == vision.operators["ATTENTION_INPUT"] == 6
    assert decoder.operators["ROTARY_EMBEDDING"] == vision.operators["ROTARY_EMBEDDING"] == 2 * 6
    # A fused attention kernel for each layer of each profile.
    assert (vision.attention, decoder.attention) == (3 * 6, 2 * 6)
    assert [len(report.activations) for report in (vision, decoder)] == [3, 2]
    assert 0 < decoder.weights < 40_000_000
    matrices = {f"text.layers.{i}.mlp.down_proj" for i in range(6)}
    fused = matrices <= decoder.int8 and "visual.merger.mlp.2" in vision.int8
    assert fused == (precision == "int8")
    assert "working memory" in str(decoder)


def one_head_in_windows(folder: Path) -> Path:
    return tiny.save_qwen2_5_vl(folder)


def one_head(folder: Path) -> Path:
    return tiny.save_qwen2_vl(folder)


SINGLE_HEADS = (one_head_in_windows, one_head)
ODD = (seven_groups_untied_wide_vision_heads, qwen2_vl_of_odd_shape)


@pytest.mark.parametrize(
    ("save", "target", "precision"),
    [
        *((save, "tensorrt-rtx", "fp16") for save in SINGLE_HEADS),
        *((save, "tensorrt-10.3", "fp16") for save in (*SINGLE_HEADS, ODD[0])),
        *((save, "tensorrt-rtx", p) for save in ODD for p in TARGETS["tensorrt-rtx"].precisions),
    ],
)
def test_odd_shapes_build(
    save: Callable[[Path], Path], target: str, precision: str, tmp_path: Path, rtx: object
) -> None:
    bundle = unproven(save(tmp_path / "model"), tmp_path / "bundle", target, precision)
    recipe, reports = load_recipe(bundle), built(bundle)
    lowered = save in SINGLE_HEADS and target != "tensorrt-10.3"
    assert list(recipe.spelled_out) == (["PatchAttention"] if lowered else [])
    native = {report.operators.get("ATTENTION_INPUT", 0) for report in reports.values()}
    assert (0 in native) == (lowered or target == "tensorrt-10.3")
    updates = reports["decoder"].operators.get("KV_CACHE_UPDATE", 0)
    assert updates == (0 if target == "tensorrt-10.3" else 2 * 2)
    # Two layers of five matrices each; in FP16 and by weights alone nothing multiplies in 8 bits.
    assert len(reports["decoder"].int8) == (2 * 5 if precision == "int8" else 0)


def test_attention_without_a_kernel_is_told_before_anything_is_made(tmp_path: Path) -> None:
    model = tiny.ask_briefly(one_head(tmp_path / "model"))
    arguments = ["convert", "--model", str(model), "--output", str(tmp_path / "out"), "--dry-run"]
    arguments += ["--target", "tensorrt-11", "--precision", "fp16"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "PatchAttention: no kernel for a single head, so it is built of" in result.output


@pytest.mark.parametrize("target", ["tensorrt-11", "tensorrt-10.16"])
def test_newer_tensorrt_takes_the_very_graphs_that_rtx_builds(
    brief_checkpoint: Path, target: str, tmp_path: Path
) -> None:
    theirs, rtx_own = (
        unproven(brief_checkpoint, tmp_path / name, name, "fp16").manifest.files
        for name in (target, "tensorrt-rtx")
    )
    for graph in ("vision.onnx", "vision.onnx.data", "decoder.onnx", "decoder.onnx.data"):
        assert theirs[graph] == rtx_own[graph]


@pytest.mark.parametrize(
    ("heads", "size", "masked"),
    [
        *((1, 64, True), (2, 64, True), (4, 80, True), (4, 16, True), (4, 256, False)),
        *((4, 8, True), (4, 20, True), (4, 264, False), (1, 128, True)),
    ],
)
def test_the_kernels_are_known_before_building(
    heads: int, size: int, masked: bool, rtx: object
) -> None:
    known = Attention("PatchAttention", heads, size).lacks
    assert builds(heads, size, masked) == (known is None)


def test_conversion_builds_engines_here(tmp_path: Path, rtx: object) -> None:
    model = tiny.ask_briefly(
        tiny.save_qwen2_5_vl(tmp_path / "model", hidden_size=128, num_heads=2), context=512
    )
    made = convert(Conversion(model, tmp_path / "out", "tensorrt-rtx", "fp16", steps=16), quiet)
    assert set(made.bundle.manifest.engines) == {"vision", "decoder"}
    assert {report.name for report in made.engines} == {"vision", "decoder"}
    parity = json.loads(made.bundle.file("parity.json").read_text())
    assert parity["logits_error"] < 0.02
    with pytest.raises(EngineError, match="this one is for tensorrt-rtx"):
        load_engine("onnx", made.bundle)


def test_recipes_for_devices_go_without_engines(brief_checkpoint: Path, tmp_path: Path) -> None:
    bundle = open_bundle(
        to_bundle(brief_checkpoint, tmp_path / "out", "fp16", target="tensorrt-10.3")
    )
    assert not bundle.manifest.engines
    recipe = load_recipe(bundle)
    prefill, decode = recipe.engines["decoder"].profiles
    assert prefill["embeddings"] == ((1, 1, 256), (1, 256, 256), (1, 1024, 256))
    assert decode["rotary_rows"] == ((1, 1), (4, 1), (8, 1))
    assert decode["past_key_1"] == ((1, 2, 1024, 64), (4, 2, 1024, 64), (8, 2, 1024, 64))
    with pytest.raises(EngineError, match="run `idetex-edge build` on the device"):
        load_builder(bundle.manifest.target, "tensorrt-10.3")
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    edit_json(copy / BUILD, {("engines",): 3})
    with pytest.raises(BundleError, match="copy the bundle again"):
        open_bundle(copy)
    for text in ("{}", "[", '{"engines": {"vision": 3}}'):
        (copy / BUILD).write_text(text)
        with pytest.raises(BundleError, match="is malformed"):
            load_recipe(seal(copy, bundle.manifest))


def test_machines_that_cannot_build(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineError, match=r"no tensorrt-rtx 1\.7 or newer .*pip install"):
        load_builder("tensorrt-rtx")
    with pytest.raises(ExportError, match="pip install"):
        to_bundle(brief_checkpoint, tmp_path / "out", "fp16", target="tensorrt-rtx")
    assert list(tmp_path.iterdir()) == []

    class Old:
        __version__ = "1.6.3"

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", Old)
    with pytest.raises(EngineError, match=r"has tensorrt-rtx 1\.6\.3, and the bundle needs 1\.7"):
        load_builder("tensorrt-rtx")
    with pytest.raises(EngineError, match=r"cannot be built for 'tensorrt-10\.3'; give"):
        load_builder("tensorrt-rtx", "tensorrt-10.3")


def test_reports_are_read_from_messages() -> None:
    messages = [
        "Total Activation Memory: 100 bytes",
        "Total Activation Memory: 50 bytes",
        "Total Weights Memory: 7 bytes",
        "Name: a.up [profile 1]+a.gate [profile 1]_myl3_7, LayerType: gemm, "
        "Inputs: [ { Datatype: Int8 }], Constants: [], Outputs: []",
        "Name: _gemm_mha_v2_myl1_6, LayerType: kgen, Inputs: [ { Datatype: Half }], Outputs: []",
    ]
    report = read_messages("decoder", 10, {"KV_CACHE_UPDATE": 4}, messages)
    assert report.activations == (100, 50)
    assert (report.weights, report.layers, report.attention) == (7, 2, 1)
    assert report.int8 == {"a.up", "a.gate"}
    assert "4 native cache updates" in str(report)
