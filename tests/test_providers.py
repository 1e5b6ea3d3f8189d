"""The `onnx` engine on other providers than the CPU's, with the CPU's in a card's place."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from PIL import Image
from skimage import data
from test_tensorrt import unproven

from idetex_edge.bundle import Bundle
from idetex_edge.cli.options import EngineName
from idetex_edge.doctor.verdicts import engine_verdicts
from idetex_edge.engines import ENGINES, Engine, load_engine
from idetex_edge.engines.providers import PROVIDERS
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.recipe import Profile, load_recipe

Places = list[tuple[str, dict[str, str]]] | None
Untyped = Any
PlainOptions: Any = ort.SessionOptions
Floats = npt.NDArray[np.float32]
CPU = "CPUExecutionProvider"
PICTURE = Image.fromarray(data.coffee()).resize((140, 112))

# `tensorrt_rtx_provider_options.h` of onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0; the plugin refuses
# others.
RTX_OPTIONS = {
    *("device_id", "enable_cuda_graph", "has_user_compute_stream", "user_compute_stream"),
    *("nv_max_workspace_size", "nv_max_shared_mem_size", "nv_multi_profile_enable"),
    *("nv_profile_min_shapes", "nv_profile_opt_shapes", "nv_profile_max_shapes"),
    *("nv_runtime_cache_path", "nv_use_external_data_initializer", "nv_weight_streaming_budget"),
}
# https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
CUDA_OPTIONS = {"device_id", "use_tf32", "arena_extend_strategy", "gpu_mem_limit"}


class Card(ort.InferenceSession):
    """A session that copies inputs when they are bound, and gives outputs back when it ran.

    ONNX Runtime does so for providers with memory of their own (`IOBinding::BindInput`).
    """

    profiles: ClassVar[dict[str, tuple[Profile, ...]]] = {}
    places: ClassVar[list[str]] = []

    def __init__(self, path: Path, options: Untyped, providers: Places) -> None:
        super().__init__(path, options, providers=providers)
        self.places.append(path.name)
        self._allowed = self.profiles.get(path.name)

    def io_binding(self) -> Untyped:
        return Binding(super().io_binding())

    def run(
        self,
        output_names: list[str],
        input_feed: Mapping[str, npt.NDArray[np.generic]],
        run_options: Untyped = None,
    ) -> Untyped:
        self._check({name: array.shape for name, array in input_feed.items()}, run_options)
        return super().run(output_names, input_feed, run_options)

    def run_with_iobinding(self, iobinding: Untyped, run_options: Untyped = None) -> None:
        shapes = {name: tuple(value.shape()) for name, value in iobinding.copies.items()}
        self._check(shapes, run_options)
        super().run_with_iobinding(iobinding.real, run_options)

    def _check(self, shapes: dict[str, tuple[int, ...]], run: Untyped) -> None:
        if self._allowed is None:
            assert run is None
            return
        assert run is not None
        profile = self._allowed[int(run.get_run_config_entry("nv_profile_index"))]
        for name, shape in shapes.items():
            least, _, most = profile[name]
            assert len(shape) == len(least)
            bounds = zip(least, shape, most, strict=True)
            assert all(low <= size <= high for low, size, high in bounds), (name, shape)


class Binding:
    def __init__(self, real: ort.IOBinding) -> None:
        self.real, self.copies = real, dict[str, ort.OrtValue]()

    def bind_ortvalue_input(self, name: str, value: ort.OrtValue) -> None:
        copy = ort.OrtValue.ortvalue_from_numpy(value.numpy().copy())
        self.copies[name] = copy
        self.real.bind_ortvalue_input(name, copy)

    def bind_ortvalue_output(self, name: str, value: ort.OrtValue) -> None:
        self.real.bind_ortvalue_output(name, value)


def registered(name: str, library: str) -> None:
    assert (name.endswith("ExecutionProvider"), library.endswith(".so")) == (True, True)


def with_parts(engine: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Let the CPU's provider stand in an engine's row; gives what a plugin's options will be."""
    row = PROVIDERS[engine]
    plugin = f"plugin_{engine.removeprefix('onnx:')}" if row.plugin else ""
    monkeypatch.setitem(PROVIDERS, engine, replace(row, name=CPU, plugin=plugin))
    monkeypatch.setitem(sys.modules, plugin, SimpleNamespace(get_library_path=lambda: "lib.so"))
    told: list[dict[str, str]] = []

    class Options(PlainOptions):
        def add_provider_for_devices(self, devices: Untyped, options: dict[str, str]) -> None:
            told.append(options)
            super().add_provider_for_devices(devices, options)

    monkeypatch.setattr(ort, "register_execution_provider_library", registered)
    monkeypatch.setattr(ort, "SessionOptions", Options)
    monkeypatch.setattr(ort, "InferenceSession", Card)
    return told


@pytest.fixture(scope="module")
def rtx_bundle(brief_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("rtx") / "bundle"
    return unproven(brief_checkpoint, folder, "tensorrt-rtx", "fp16")


def along(engine: Engine, bundle: Bundle) -> list[Floats]:
    """A picture's features, and logits along a prefix, its forks, and more forks than fit."""
    features = engine.encode(bundle.manifest.preprocessor.patchify(PICTURE))
    count = len(features)
    stem = engine.start(count)
    where = np.sort(np.random.default_rng(0).integers(0, 40, (3, count)), axis=1)
    found = [features, engine.extend(stem, features, where)]
    forks = engine.fork(stem, 3, 200)
    first = forks[0].next_position
    run = np.broadcast_to(np.arange(first, first + 3), (3, 3))
    found.append(engine.extend(forks[0], engine.embed([60, 61, 62]), run))
    for rows in ([0, 1, 2], [2, 0], [1], [1, 2, 0]):
        found.append(engine.decode([forks[i] for i in rows], [7 + i for i in rows]))
    found.append(engine.decode(engine.fork(stem, 11, 100), np.arange(11)))
    return found


@pytest.mark.parametrize("name", ["onnx:rtx", "onnx:cuda"])
def test_a_card_answers_as_the_cpu(
    name: str, rtx_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(rtx_bundle, manifest=replace(rtx_bundle.manifest, target="onnx-standard"))
    expected = along(load_engine("onnx:cpu", here), here)
    recipe = load_recipe(rtx_bundle)
    allowed = {e.graph: e.profiles for e in recipe.engines.values()} if name == "onnx:rtx" else {}
    monkeypatch.setattr(Card, "profiles", allowed)
    monkeypatch.setattr(Card, "places", [])
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path))
    told = with_parts(name, monkeypatch)
    engine = load_engine(name, rtx_bundle)
    assert engine.name == name
    for got, wanted in zip(along(engine, rtx_bundle), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-2)
        assert (got.argmax(-1) == wanted.argmax(-1)).all()
    # Weights lie once in a card's memory.
    assert sorted(Card.places) == ["decoder.onnx", "vision.onnx"]
    for options in told:
        assert set(options) <= RTX_OPTIONS
        assert options["nv_runtime_cache_path"] == str(tmp_path / "onnx-rtx")
    assert len(told) == (2 if name == "onnx:rtx" else 0)


def test_the_plugin_is_told_every_profile(
    rtx_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(rtx_bundle)
    monkeypatch.setattr(Card, "profiles", {"vision.onnx": recipe.engines["vision"].profiles})
    told = with_parts("onnx:rtx", monkeypatch)
    engine = load_engine("onnx:rtx", rtx_bundle)
    engine.encode(rtx_bundle.manifest.preprocessor.patchify(PICTURE))
    wanted = recipe.engines["vision"].profiles
    for at, bound in enumerate(("min", "opt", "max")):
        pairs = [part.split(":") for part in told[0][f"nv_profile_{bound}_shapes"].split(",")]
        assert len(pairs) == sum(len(profile) for profile in wanted)
        for index, profile in enumerate(wanted):
            for name, shapes in profile.items():
                mine = [sizes for told_name, sizes in pairs if told_name == name]
                assert [int(size) for size in mine[index].split("x")] == list(shapes[at])


def test_every_provider_is_an_engine_that_help_and_doctor_know(tiny_bundle: Bundle) -> None:
    assert set(PROVIDERS) == {name for name in ENGINES if name.startswith("onnx:")}
    _, option = get_args(EngineName)
    assert all(name in option.help for name in PROVIDERS)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in ENGINES)
    verdicts = {verdict.name: verdict for verdict in engine_verdicts(tiny_bundle)}
    for name, provider in PROVIDERS.items():
        assert verdicts[name].works == (name == "onnx:cpu")
        assert name == "onnx:cpu" or provider.install in verdicts[name].reason
        assert "\n" not in verdicts[name].reason
    assert set(PROVIDERS["onnx:cuda"].options) <= CUDA_OPTIONS


def test_what_is_missing_is_said(
    rtx_bundle: Bundle, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = PROVIDERS["onnx:rtx"]
    monkeypatch.setitem(sys.modules, rtx.plugin, None)
    with pytest.raises(EngineError, match=r"not installed: pip install 'idetex-edge\[rtx\]'"):
        load_engine("onnx:rtx", rtx_bundle)
    here = SimpleNamespace(get_library_path=lambda: "/nowhere/libplugin.so")
    monkeypatch.setitem(sys.modules, rtx.plugin, here)
    with pytest.raises(EngineError, match=r"cannot load onnxruntime_ep_nv_tensorrt_rtx: .*nowhere"):
        load_engine("onnx:rtx", rtx_bundle)
    monkeypatch.setattr(ort, "register_execution_provider_library", registered)
    monkeypatch.setitem(PROVIDERS, "onnx:rtx", replace(rtx, name="AnotherExecutionProvider"))
    with pytest.raises(EngineError, match="finds no GPU that AnotherExecutionProvider supports"):
        load_engine("onnx:rtx", rtx_bundle)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(EngineError, match=r"onnx:cuda engine runs onnx-standard.* is for onnx-cpu"):
        load_engine("onnx:cuda", tiny_bundle)
    # Without a card ONNX Runtime goes on with the CPU's provider: we do not.
    engine = load_engine("onnx:cuda", rtx_bundle)
    with pytest.raises(EngineError, match="finds no GPU or not all of CUDA's libraries"):
        engine.encode(rtx_bundle.manifest.preprocessor.patchify(PICTURE))


def test_pictures_beyond_every_profile_are_refused(
    rtx_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_parts("onnx:rtx", monkeypatch)
    engine = load_engine("onnx:rtx", rtx_bundle)
    patched = rtx_bundle.manifest.preprocessor.patchify(PICTURE)
    most = load_recipe(rtx_bundle).engines["vision"].profiles[-1]["patches"][-1][0]
    side = math.isqrt(most) // 2 * 2 + 2
    patches = np.zeros((side * side, patched.patches.shape[1]), np.float32)
    with pytest.raises(Exception, match="was not made for"):
        engine.encode(replace(patched, patches=patches, grid=(side, side)))
