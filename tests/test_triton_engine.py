"""The `triton` engine on a GPU of host memory, against ONNX Runtime and by itself."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from conftest import quiet, to_bundle

pytest.importorskip("triton", reason="kernels' references stand beside Triton's functions")

from host_gpu import HostGpu
from PIL import Image
from skimage import data

from export.calibration.plan import Plan
from export.checkpoint import open_checkpoint
from export.convert import Conversion, convert
from export.triton.add import add_triton
from idetex_edge import Assessor
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import Engine, Sequence, load_engine
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.errors import EngineError, ExportError, OutputError, RequestError
from idetex_edge.triton.slots import Chain, Slots
from kernels.configurations import WEIGHTS, needed, shape_of
from kernels.variant import Variant

Floats = npt.NDArray[np.float32]


def variants_of(bundle: Path, precision: str) -> list[Variant]:
    return needed([shape_of(bundle / "manifest.json")], [precision])


def pretended_build(folder: Path, variants: list[Variant]) -> Path:
    """What `python -m kernels build` writes, with names for cubins."""
    kernels = {
        v.name: {
            "function": v.kernel.__name__,
            "warps": v.warps,
            "shared": 1024,
            "arguments": [*v.types.items(), ("scratch0", "*i8"), ("scratch1", "*i8")],
            "constants": dict(v.constants),
        }
        for v in variants
    }
    arch = folder / "sm_87"
    arch.mkdir(parents=True)
    for name in kernels:
        (arch / f"{name}.cubin").write_text(name)
    (arch / "index.json").write_text(json.dumps({"arch": "sm_87", "kernels": kernels}))
    return folder


def with_gpu_part(
    checkpoint: Path,
    bundle: Path,
    folder: Path,
    precision: str = "fp16",
    cache: str = "float",
    plan: Plan | None = None,
) -> Bundle:
    """A copy of a bundle with a part for GPUs."""
    kernels = pretended_build(folder / "kernels", variants_of(bundle, precision))
    shutil.copytree(bundle, folder / "bundle")
    return add_triton(
        *(open_bundle(folder / "bundle"), open_checkpoint(checkpoint), kernels),
        *(precision, cache, plan or Plan(), quiet),
    )


@pytest.fixture(scope="module")
def gpu_bundle(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The tiny bundle with FP16 weights and an FP16 cache for a GPU."""
    return with_gpu_part(tiny_checkpoint, tiny_bundle_path, tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def gpu(gpu_bundle: Bundle) -> HostGpu:
    return HostGpu(variants_of(gpu_bundle.path, "fp16"))


@pytest.fixture(scope="module")
def engine(gpu_bundle: Bundle, gpu: HostGpu) -> TritonEngine:
    return TritonEngine(gpu_bundle, gpu)


def assert_close(got: Floats, expected: Floats, ratio: float) -> None:
    assert np.isfinite(got).all()
    error = np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))
    assert error < ratio, f"RMS error ratio {error:.2e}"


def positions(start: int, count: int) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.arange(start, start + count), (3, count))


def answers(engine: Engine, picture: Image.Image, bundle: Bundle) -> tuple[Floats, list[Floats]]:
    """Features of a picture, and logits along a prefix, its forks and forks of those."""
    patched = bundle.manifest.preprocessor.patchify(picture)
    features = engine.encode(patched)
    rng = np.random.default_rng(0)
    where = np.sort(rng.integers(0, 40, (3, len(features))), axis=1)
    stem = engine.start(len(features))
    logits = [engine.extend(stem, features, where)]
    forks = engine.fork(stem, 3, 200)
    first = forks[0].next_position
    logits.append(engine.extend(forks[0], engine.embed([60, 61, 62]), positions(first, 3)))
    for rows in ([0, 1, 2], [2, 0], [1], [1, 2, 0]):
        tokens = rng.integers(0, 280, len(rows))
        logits += list(engine.decode([forks[i] for i in rows], tokens))
    deeper: list[Sequence] = [*engine.fork(forks[0], 2, 200), forks[1], stem]
    for _ in range(3):
        logits += list(engine.decode(deeper, rng.integers(0, 280, len(deeper))))
    return features, logits


@pytest.mark.parametrize(
    ("precision", "cache", "ratio"),
    [
        ("fp16", "float", 3e-3),
        ("fp16", "int8", 2e-2),
        ("int8", "int8", 4e-2),
        ("int4", "float", 0.5),
    ],
)
def test_answers_are_those_of_the_onnx_engine(
    precision: str,
    cache: str,
    ratio: float,
    tiny_checkpoint: Path,
    tiny_engine: Engine,
    tiny_bundle_path: Path,
    tmp_path: Path,
) -> None:
    """The whole way: windows, projector, prefill, forks of forks, captured steps."""
    bundle = with_gpu_part(tiny_checkpoint, tiny_bundle_path, tmp_path, precision, cache)
    gpu = HostGpu(variants_of(bundle.path, precision))
    picture = Image.fromarray(data.astronaut()[:140, :170])
    features, logits = answers(TritonEngine(bundle, gpu), picture, bundle)
    expected_features, expected = answers(tiny_engine, picture, bundle)
    assert_close(features, expected_features, ratio)
    for got, right in zip(logits, expected, strict=True):
        assert_close(got, right, ratio)
    if precision == "fp16":
        same = [got.argmax() == right.argmax() for got, right in zip(logits, expected, strict=True)]
        assert all(same)
    assert any("shared" in name for name in gpu.launches)
    assert gpu.replays
    # INT8 matrices multiply INT8 in vision and prefill, and are widened in decoding alone.
    products = {name.split(".")[2] for name in gpu.launches if name.startswith("linear")}
    assert ("integer" in products) == (precision != "fp16")
    assert any(name.startswith("linear") and name.endswith(".128") for name in gpu.launches)
    widening = {name for name in gpu.launches if name.startswith("linear.fp16.int8")}
    assert all(int(name.rpartition(".")[2]) <= 16 for name in widening)


def test_where_an_int8_prompt_is_cut_changes_nothing(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    """Each row is rounded by itself, whatever it is prefilled with."""
    bundle = with_gpu_part(tiny_checkpoint, tiny_bundle_path, tmp_path, "int8", "int8")
    engine = TritonEngine(bundle, HostGpu(variants_of(bundle.path, "int8")))
    embeddings = engine.embed(list(range(40, 70)))
    whole = engine.start(64)
    right = engine.extend(whole, embeddings, positions(0, 30))
    cut = engine.start(64)
    engine.extend(cut, embeddings[:25], positions(0, 25))
    assert_close(engine.extend(cut, embeddings[25:], positions(25, 5)), right, 1e-3)


def test_qwen2_vl_has_no_windows_and_layer_norms(tmp_path: Path) -> None:
    checkpoint = tiny.ask_briefly(tiny.save_qwen2_vl(tmp_path / "checkpoint"))
    plain = to_bundle(checkpoint, tmp_path / "plain")
    bundle = with_gpu_part(checkpoint, plain, tmp_path / "gpu")
    picture = Image.fromarray(data.chelsea()[:90, :130])
    gpu = HostGpu(variants_of(bundle.path, "fp16"))
    got, logits = answers(TritonEngine(bundle, gpu), picture, bundle)
    expected, right = answers(load_engine("onnx", open_bundle(plain), 1), picture, bundle)
    assert_close(got, expected, 3e-3)
    for mine, theirs in zip(logits, right, strict=True):
        assert_close(mine, theirs, 3e-3)


def test_convert_takes_kernels_along(
    brief_checkpoint: Path, gpu_bundle: Bundle, tmp_path: Path
) -> None:
    kernels = pretended_build(tmp_path / "kernels", variants_of(gpu_bundle.path, "fp16"))
    wanted = Conversion(brief_checkpoint, tmp_path / "bundle", steps=4, kernels=kernels)
    made = convert(wanted, quiet).bundle
    assert {"triton.json", "triton.weights.bin", "triton.sm_87.bin"} <= set(made.manifest.files)
    assert TritonEngine(made, HostGpu(variants_of(made.path, "fp16"))).name == "triton"
    with pytest.raises(ExportError, match="holds no kernels"):
        convert(replace(wanted, output=tmp_path / "no", kernels=tmp_path), quiet)


def test_a_whole_assessment_is_that_of_the_onnx_engine(
    gpu_bundle: Bundle, engine: TritonEngine, monkeypatch: pytest.MonkeyPatch
) -> None:

    def driver(_: str) -> HostGpu:
        return engine_api(engine)

    monkeypatch.setattr("idetex_edge.engines.triton.cuda_driver", driver)
    picture = Image.fromarray(data.coffee()[:120, :120])
    mine, theirs = (Assessor(gpu_bundle.path, engine=name) for name in ("triton", "onnx"))
    assert mine.engine == "triton"
    got, right = mine.score(picture), theirs.score(picture)
    assert got.level == right.level
    assert abs(got.mos - right.mos) < 0.01
    asked = ("Which?", ["Noise", "Motion blur", "Low clarity"])
    assert mine.ask(picture, *asked).choice == theirs.ask(picture, *asked).choice


def engine_api(engine: TritonEngine) -> HostGpu:
    """The GPU that an engine was made on."""
    return engine._device._api  # pyright: ignore[reportPrivateUsage]


def test_a_fork_copies_nothing(engine: TritonEngine, gpu: HostGpu) -> None:
    stem = engine.start(64)
    engine.extend(stem, engine.embed(list(range(40))), positions(0, 40))
    gc.collect()
    before = gpu.copies, len(gpu.launches), gpu.allocated
    engine.fork(stem, 8, 80)
    assert (gpu.copies, len(gpu.launches), gpu.allocated) == before


def test_steps_are_captured_once_and_repeated(engine: TritonEngine, gpu: HostGpu) -> None:
    stem = engine.start(64)
    engine.extend(stem, engine.embed(list(range(30))), positions(0, 30))
    forks = engine.fork(stem, 5, 64)
    engine.decode(forks, [1, 2, 3, 4, 5])
    gc.collect()
    allocated, replays, held = gpu.allocated, gpu.replays, gpu.held
    for token in range(6):
        alone = engine.fork(stem, 1, 64)
        together = engine.decode(forks, [token] * 5)
        assert np.isfinite(together).all()
        del alone
    assert gpu.replays == replays + 6
    assert gpu.held == held
    assert gpu.allocated == allocated, "decoding allocates nothing"


def test_splitting_a_prompt_and_batching_change_nothing(engine: TritonEngine) -> None:
    ids = list(range(20, 60))
    whole, parts = engine.start(40), engine.start(1)
    expected = engine.extend(whole, engine.embed(ids), positions(0, 40))
    logits = expected
    for first, last in ((0, 7), (7, 8), (8, 40)):
        logits = engine.extend(parts, engine.embed(ids[first:last]), positions(first, last - first))
    assert_close(logits, expected, 2e-3)
    assert whole.length == parts.length == 40
    forks = engine.fork(whole, 40, 48)
    batch = engine.decode(forks, [9] * 40)
    assert_close(batch, np.broadcast_to(batch[0], batch.shape), 2e-3)
    assert_close(batch[0], engine.decode(engine.fork(whole, 1, 48), [9])[0], 2e-3)


def test_long_prompts_are_prefilled_in_pieces(
    engine: TritonEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 280, 150)]
    expected = engine.extend(engine.start(150), engine.embed(ids), positions(0, 150))
    monkeypatch.setattr("idetex_edge.triton.language.PIECE", 64)
    pieces = engine.extend(engine.start(150), engine.embed(ids), positions(0, 150))
    assert_close(pieces, expected, 2e-3)


def test_everything_is_freed_with_the_engine(gpu_bundle: Bundle) -> None:
    gpu = HostGpu(variants_of(gpu_bundle.path, "fp16"))
    engine = TritonEngine(gpu_bundle, gpu)
    stem = engine.start(8)
    engine.extend(stem, engine.embed([1, 2]), positions(0, 2))
    engine.decode([stem], [3])
    assert gpu.allocated
    del engine, stem
    gc.collect()
    assert gpu.allocated == 0
    assert gpu.held == 0


def test_requests_that_make_no_sense(engine: TritonEngine, tiny_bundle: Bundle) -> None:
    context = tiny_bundle.manifest.text.max_context
    stem = engine.start(8)
    embeddings = engine.embed([1, 2])
    engine.extend(stem, embeddings, positions(0, 2))
    foreign = Chain(Slots(64))
    for wrong in (
        lambda: engine.start(0),
        lambda: engine.start(context + 1),
        lambda: engine.extend(stem, embeddings, positions(0, 3)),
        lambda: engine.extend(stem, embeddings, positions(context, 2)),
        lambda: engine.extend(foreign, embeddings, positions(0, 2)),
        lambda: engine.fork(stem, 0, 8),
        lambda: engine.decode([], []),
        lambda: engine.decode([stem, stem], [1, 2]),
        lambda: engine.decode([engine.start(4)], [1]),
    ):
        with pytest.raises(RequestError):
            wrong()
    assert stem.length == 2


def test_a_full_cache_says_so_and_spoils_nothing(engine: TritonEngine) -> None:
    context = engine._text.max_context  # pyright: ignore[reportPrivateUsage]
    held = [engine.start(context) for _ in range(3)]
    stem = engine.start(16)
    engine.extend(stem, engine.embed(list(range(16))), positions(0, 16))
    held += [engine.start(context - 16)]
    with pytest.raises(EngineError, match="slots have no"):
        engine.decode([stem], [1])
    assert stem.length == 16
    del held
    assert engine.decode([stem], [1]).shape[0] == 1


def test_machines_and_bundles_that_do_not_suit(
    gpu_bundle: Bundle, tiny_bundle: Bundle, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    variants = variants_of(gpu_bundle.path, "fp16")
    for bundle, gpu, message in (
        (gpu_bundle, HostGpu(variants, devices=0), "needs an NVIDIA GPU; this machine shows none"),
        (gpu_bundle, HostGpu(variants, arch=(9, 0)), "kernels for sm_87, not for sm_90"),
        (gpu_bundle, HostGpu(variants, memory=1000), "CUDA_ERROR_OUT_OF_MEMORY"),
        (tiny_bundle, HostGpu(variants), "no part for GPUs"),
    ):
        with pytest.raises(EngineError, match=message) as raised:
            TritonEngine(bundle, gpu)
        assert "\n" not in str(raised.value)
    manifest = replace(tiny_bundle.manifest, text=replace(tiny_bundle.manifest.text, layers=9))
    with pytest.raises(ExportError, match="shapes differ"):
        add_triton(
            *(replace(tiny_bundle, manifest=manifest), open_checkpoint(tiny_checkpoint)),
            *(tmp_path, "fp16", "float", Plan(), quiet),
        )


def test_without_a_gpu_the_assessor_says_what_is_missing() -> None:
    missing = "an NVIDIA GPU and its driver" if find_spec("cuda") else "cuda-bindings"
    with pytest.raises(EngineError, match=f"the triton engine needs {missing}") as raised:
        Assessor(engine="triton")
    assert "\n" not in str(raised.value)


def test_a_part_that_cannot_be_made_leaves_the_bundle_as_it_was(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle_path, tmp_path / "bundle")
    bundle, checkpoint = open_bundle(tmp_path / "bundle"), open_checkpoint(tiny_checkpoint)
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    (tmp_path / "unfinished" / "sm_87").mkdir(parents=True)
    with pytest.raises(ExportError, match="holds no kernels"):
        add_triton(bundle, checkpoint, tmp_path / "unfinished", "fp16", "float", Plan(), quiet)
    kernels = pretended_build(tmp_path / "kernels", variants_of(bundle.path, "fp16"))
    with pytest.raises(ExportError, match="unknown precision 'fp8'"):
        add_triton(bundle, checkpoint, kernels, "fp8", "float", Plan(), quiet)

    def full(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="no space left"):
        add_triton(bundle, checkpoint, kernels, "fp16", "float", Plan(), quiet)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_precisions_have_their_kernels() -> None:
    from export.triton.weights import PRECISIONS

    for precision, forms in PRECISIONS.items():
        assert {"float", *forms} <= set(WEIGHTS[precision])
