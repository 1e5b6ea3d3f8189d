"""The `tensorrt` engine on a GPU of host memory, against ONNX Runtime on the same graphs."""

from __future__ import annotations

import gc
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import to_bundle

pytest.importorskip("triton", reason="the host's GPU knows the kernels of the triton engine")

from fake_tensorrt import FakeTensorrt, fake_build
from host_gpu import HostGpu
from PIL import Image
from skimage import data

from idetex_edge import Assessor
from idetex_edge.bundle import Bundle, add_files, open_bundle, part_of
from idetex_edge.engines import Sequence
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.engines.tensorrt import TensorrtEngine
from idetex_edge.errors import BundleError, EngineError, RequestError
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import load_recipe
from idetex_edge.tensorrt.store import EngineStore

Floats = npt.NDArray[np.float32]
PICTURE = Image.fromarray(data.coffee())


@pytest.fixture(scope="module", params=["tensorrt-11", "tensorrt-10.3"])
def bundle(
    request: pytest.FixtureRequest,
    brief_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """For native attention and cache updates, and with all of that spelled out."""
    folder = tmp_path_factory.mktemp("trt") / "bundle"
    return open_bundle(to_bundle(brief_checkpoint, folder, target=request.param, precision="fp16"))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineStore:
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("idetex_edge.tensorrt.engines.build_apart", fake_build)
    return EngineStore.of_user()


@pytest.fixture
def gpu() -> HostGpu:
    return HostGpu((), waits=True)


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def trt(request: pytest.FixtureRequest, gpu: HostGpu) -> FakeTensorrt:
    return FakeTensorrt(gpu, request.param)


def on_the_cpu(bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(replace(bundle, manifest=replace(bundle.manifest, target="onnx-standard")))


def along(engine: TensorrtEngine | OnnxEngine, bundle: Bundle) -> tuple[Floats, list[Floats]]:
    """Features of a picture, and logits along a prefix, its forks and forks of those."""
    patched = bundle.manifest.preprocessor.patchify(PICTURE.resize((140, 112)))
    features = engine.encode(patched)
    rng = np.random.default_rng(0)
    stem = engine.start(len(features))
    where = np.sort(rng.integers(0, 40, (3, len(features))), axis=1)
    logits = [engine.extend(stem, features, where)]
    forks = engine.fork(stem, 3, 200)
    first = forks[0].next_position
    positions = np.broadcast_to(np.arange(first, first + 3), (3, 3))
    logits.append(engine.extend(forks[0], engine.embed([60, 61, 62]), positions))
    for rows in ([0, 1, 2], [2, 0], [1], [1, 2, 0], [1, 2, 0]):
        logits += list(engine.decode([forks[i] for i in rows], rng.integers(0, 280, len(rows))))
    deeper: list[Sequence] = [*engine.fork(forks[0], 2, 200), forks[1], stem]
    logits += list(engine.decode(deeper, [5, 6, 7, 8]))
    many = engine.fork(stem, 11, 100)
    logits += list(engine.decode(many, np.arange(11)))
    return features, logits


def test_it_computes_what_the_onnx_engine_computes(
    bundle: Bundle, gpu: HostGpu, trt: FakeTensorrt
) -> None:
    engine = TensorrtEngine(bundle, trt, gpu)
    features, logits = along(engine, bundle)
    expected_features, expected = along(on_the_cpu(bundle), bundle)
    np.testing.assert_array_equal(features, expected_features)
    for one, other in zip(logits, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-2)
        assert one.argmax() == other.argmax()
    assert set(trt.strategies) == ({"whole"} if trt.__name__ == "tensorrt_rtx" else set())
    # Decoding the same rows again is replayed where graphs are ours to record.
    assert (gpu.replays > 0) == (trt.__name__ == "tensorrt")


def test_a_whole_assessment_is_that_of_the_cpu(
    bundle: Bundle, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = FakeTensorrt(gpu)

    def here(_: object) -> list[FakeTensorrt]:
        return [trt]

    def host(_: str) -> HostGpu:
        return gpu

    def cpu(_: str, opened: Bundle, __: int | None) -> OnnxEngine:
        return on_the_cpu(opened)

    monkeypatch.setattr("idetex_edge.tensorrt.engines.builders_here", here)
    monkeypatch.setattr("idetex_edge.engines.tensorrt.cuda_driver", host)
    assessor = Assessor(bundle.path, engine="tensorrt")
    assert assessor.engine == "tensorrt"
    monkeypatch.setattr("idetex_edge.assessor.load_engine", cpu)
    told = Assessor(bundle.path).assess(PICTURE)
    mine = assessor.assess(PICTURE)
    assert mine.distortions == told.distortions
    assert mine.description == told.description
    assert mine.score == pytest.approx(told.score, abs=0.5)


def test_every_recorded_step_has_a_context_of_its_own(bundle: Bundle, gpu: HostGpu) -> None:
    trt = FakeTensorrt(gpu)
    engine = TensorrtEngine(bundle, trt, gpu)
    assert trt.contexts == ["decoder", "decoder", "vision"]
    stem = engine.start(10)
    engine.extend(stem, engine.embed([1, 2]), np.broadcast_to(np.arange(2), (3, 2)))
    before = gpu.allocated

    def decode(rows: int) -> None:
        forks = engine.fork(stem, rows, 20)
        for _ in range(3):
            engine.decode(forks, list(range(rows)))

    for rows in (3, 2, 3, 2, 4):
        decode(rows)
        gc.collect()
    # What caches that are gone were recorded with is taken again, for as many rows.
    assert trt.contexts[3:] == ["decoder"] * 3
    assert gpu.replays == 5 * 2
    # All contexts work in one piece of memory, made before: only buffers have grown.
    largest = max(
        e.get_device_memory_size_for_profile_v2(i)
        for e in trt.engines
        for i in range(len(e.profiles))
    )
    assert gpu.allocated - before < largest


def test_weights_that_do_not_fit_are_streamed(
    bundle: Bundle, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far_too_small(_: Bundle, __: int | None) -> bool:
        return True

    for place in ("memory", "engines"):
        monkeypatch.setattr(f"idetex_edge.tensorrt.{place}.streams", far_too_small)
    trt = FakeTensorrt(gpu)
    TensorrtEngine(bundle, trt, gpu)
    for engine in trt.engines:
        assert 0 < engine.weight_streaming_budget_v2 < engine.streamable_weights_size


def test_memory_is_freed_with_what_it_holds(bundle: Bundle, gpu: HostGpu) -> None:
    engine = TensorrtEngine(bundle, FakeTensorrt(gpu), gpu)
    stem = engine.start(10)
    positions = np.broadcast_to(np.arange(2), (3, 2))
    engine.extend(stem, engine.embed([1, 2]), positions)
    engine.decode(engine.fork(stem, 4, 20), [1, 2, 3, 4])
    gc.collect()
    before, held = gpu.allocated, gpu.held
    forks = engine.fork(stem, 4, 20)
    engine.decode(forks, [1, 2, 3, 4])
    assert gpu.allocated > before
    assert gpu.held > held
    del forks
    gc.collect()
    assert (gpu.allocated, gpu.held) == (before, held)
    del stem, engine
    gc.collect()
    assert (gpu.allocated, gpu.held) == (0, 0)


def test_what_cannot_be_done(bundle: Bundle, gpu: HostGpu) -> None:
    trt = FakeTensorrt(gpu)
    engine = TensorrtEngine(bundle, trt, gpu)
    with pytest.raises(RequestError, match="empty sequence"):
        engine.decode([engine.start(4)], [1])
    with pytest.raises(RequestError, match="context"):
        engine.start(10**6)
    with pytest.raises(RequestError, match="fork into 0"):
        engine.fork(engine.start(4), 0, 4)
    with pytest.raises(RequestError, match="another engine"):
        engine.fork(on_the_cpu(bundle).start(4), 1, 4)
    trt.refused = True
    with pytest.raises(EngineError, match="failed in the decoder engine"):
        engine.extend(engine.start(4), engine.embed([1]), np.zeros((3, 1), np.int64))


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        (HostGpu((), devices=0), "this machine shows none"),
        (HostGpu((), memory=2**16), "CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_a_machine_that_does_not_do(bundle: Bundle, gpu: HostGpu, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        TensorrtEngine(bundle, FakeTensorrt(gpu), gpu).start(8)


def test_it_says_in_one_line_what_is_missing(
    bundle: Bundle, tiny_bundle: Bundle, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineError, match="this machine has no tensorrt 1"):
        TensorrtEngine(bundle, api=gpu)
    with pytest.raises(EngineError, match="this one is for onnx-cpu; export it for tensorrt-rtx"):
        TensorrtEngine(tiny_bundle, api=gpu)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EngineError, match="the tensorrt engine needs cuda-bindings") as raised:
        Assessor(bundle.path, engine="tensorrt")
    assert "\n" not in str(raised.value)


def test_engines_are_built_once(bundle: Bundle, gpu: HostGpu, store: EngineStore) -> None:
    trt = FakeTensorrt(gpu)
    for _ in range(2):
        TensorrtEngine(bundle, trt, gpu)
    assert sorted(trt.builds) == ["decoder", "vision"]
    newer = FakeTensorrt(gpu, version="11.1.0")
    TensorrtEngine(bundle, newer, gpu)
    assert sorted(newer.builds) == ["decoder", "vision"]
    assert len(list(store.folder.glob("*.engine"))) == 4


def test_an_altered_engine_is_noticed_before_it_is_read(
    bundle: Bundle, gpu: HostGpu, store: EngineStore
) -> None:
    trt = FakeTensorrt(gpu)
    TensorrtEngine(bundle, trt, gpu)
    path = min(store.folder.glob("*.engine"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="was altered since it was made"):
        TensorrtEngine(bundle, trt, gpu)
    assert len(trt.builds) == 3


def test_engines_in_the_bundle_are_vouched_for_by_its_manifest(
    bundle: Bundle, gpu: HostGpu, store: EngineStore, tmp_path: Path
) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    copy = open_bundle(tmp_path / "copy")
    trt = FakeTensorrt(gpu)
    engines = load_recipe(copy).engines
    parts = {engine.file: part_of(copy.file(engine.file)) for engine in engines.values()}
    for engine in engines.values():
        fake_build(trt, copy, engine, Limits(), parts[engine.file], print)
    names = {name: engine.file for name, engine in engines.items()}
    whole = add_files(replace(copy, manifest=replace(copy.manifest, engines=names)), parts)
    trt.builds.clear()
    TensorrtEngine(whole, trt, gpu)
    assert trt.builds == []
    assert not list(store.folder.glob("*.engine"))
    whole.file("decoder.engine").write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"decoder\.engine was altered"):
        TensorrtEngine(whole, trt, gpu)


def test_kernels_that_rtx_compiled_are_kept(
    bundle: Bundle, gpu: HostGpu, store: EngineStore
) -> None:
    trt = FakeTensorrt(gpu, "tensorrt_rtx")
    engine = TensorrtEngine(bundle, trt, gpu)
    assert trt.taken == []
    del engine
    gc.collect()
    TensorrtEngine(bundle, trt, gpu)
    # Every context compiles into the one that is kept.
    assert trt.taken == [b"decoder,decoder,vision"]
    gc.collect()
    path = store.folder / "tensorrt_rtx-11.0.0-sm_87.engine"
    path.write_bytes(b"altered")
    trt.taken.clear()
    with pytest.warns(RuntimeWarning, match="was altered since it was made"):
        TensorrtEngine(bundle, trt, gpu)
    assert trt.taken == []
