"""The whole engine as `benchmarks/kernels.py` measures it, on a GPU of host memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import quiet

pytest.importorskip("triton", reason="kernels' references stand beside Triton's functions")

from host_gpu import HostGpu
from test_triton_engine import pretended_build, variants_of

from benchmarks.gpu import engine
from benchmarks.gpu.engine import bytes_of_step, gpu_bundle
from benchmarks.gpu.figures import ENGINE, PEER, Figures
from benchmarks.peers import catalogue
from benchmarks.shapes import RandomWeights
from export.checkpoint import Checkpoint, open_checkpoint
from idetex_edge.asking import Asker
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.errors import EngineError, ExportError
from idetex_edge.measuring.contenders import Contender, running
from idetex_edge.measuring.measure import Plan
from idetex_edge.measuring.rows import Place, summarise
from idetex_edge.measuring.scenarios import SCENARIOS, picture
from idetex_edge.measuring.worker import Ours
from idetex_edge.triton.contents import read_contents

NANO = Path(__file__).parents[1] / "idetex_edge" / "models" / "nano"


def pretended_kernels(bundle: Path, arch: str, precision: str, folder: Path) -> None:
    assert arch == "sm_87"
    pretended_build(folder, variants_of(bundle, precision))


def test_a_bundle_for_gpus_alone_answers(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def build(bundle: Path, arch: str, precision: str, folder: Path) -> None:
        asked.append((arch, precision))
        pretended_kernels(bundle, arch, precision, folder)

    monkeypatch.setattr(engine, "build_kernels", build)
    checkpoint = open_checkpoint(tiny_checkpoint)
    bundle = gpu_bundle(checkpoint, tmp_path / "gpu", "int8", "int8", "sm_87", quiet)
    assert asked == [("sm_87", "int8")]
    path = tmp_path / "picture.png"
    picture(84, 84).save(path)
    gpu = HostGpu(variants_of(bundle.path, "int8"))
    ours = Ours(Asker(bundle, TritonEngine(bundle, gpu), 10**6))
    measured = ours.run(SCENARIOS["describe128"].limited(3), path)
    assert measured.tokens == [3]
    assert measured.figures["decode"] > 0
    tensors = read_contents(bundle).tensors
    head = tensors["text.head.weight"].bytes
    assert head == 2 * checkpoint.text.vocab * checkpoint.text.hidden
    assert head < bytes_of_step(bundle) < sum(facts.bytes for facts in tensors.values())


def test_the_same_shape_runs_in_transformers(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    """As on a GPU, on this processor: BF16, and random weights where there is a config alone."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (bare / file).write_bytes((tiny_checkpoint / file).read_bytes())
    path = tmp_path / "picture.png"
    picture(84, 84).save(path)
    peer = catalogue.peer_contender(PEER, "tiny", bare, tiny_bundle_path, tmp_path, 1)
    *command, settings = peer.command
    contender = Contender(PEER, "tiny", (*command, settings.replace('"cuda"', '"cpu"')), peer=True)
    with running([contender]) as (process,):
        answer = process.run(SCENARIOS["describe128"].limited(3), path)
    assert answer.tokens == [3]
    assert answer.figures["decode"] > 0


def test_kernels_that_cannot_be_built_are_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="for sm_5: unknown architecture sm_5; known are"):
        engine.build_kernels(NANO, "sm_5", "int8", tmp_path)


def test_figures_outlive_a_peer(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)

    def checkpoint_of(shape: str, work: Path) -> Checkpoint:
        return checkpoint

    def agreement_of(*_: object) -> float:
        return 0.995

    def present(name: str) -> None:
        assert name == PEER

    def measured(turns: Plan, advance: object) -> dict[Place, list[float]]:
        if len(turns.contenders) > 1:
            raise EngineError("transformers-cuda failed: out of memory")
        return {Place("describe128", "448x448", ENGINE, "nano", "decode"): [100.0]}

    for name, replacement in (
        ("checkpoint_of", checkpoint_of),
        ("build_kernels", pretended_kernels),
        ("agreement_of", agreement_of),
        ("missing", present),
        ("measure", measured),
    ):
        monkeypatch.setattr(engine, name, replacement)
    first, last = engine.measure_engine(("nano",), "sm_87", tmp_path, 1e9, 1, quiet)
    assert (first.agreement, first.rows) == ({"nano": 0.995}, ())
    assert last.missing == "transformers-cuda failed: out of memory"
    assert [row.median for row in last.rows] == [100]
    assert 0 < last.of_floor["nano"] < 1


def test_the_peer_on_a_gpu_is_missing_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "NVIDIA GPU" in str(catalogue.missing(PEER))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert catalogue.missing(PEER) is None
    assert PEER not in catalogue.on_processors()


def test_ratios_are_of_the_engine() -> None:
    def place(name: str) -> Place:
        return Place("ask8", "448x448", name, "3B", "end to end")

    rows = summarise({place(ENGINE): [10.0], place(PEER): [80.0]}, frozenset({PEER}), {})
    assert Figures(tuple(rows)).times("3B", "ask8", "end to end") == 8
    with pytest.raises(KeyError):
        Figures(tuple(rows)).times("nano", "ask8", "end to end")


def test_random_weights_are_the_same_every_time() -> None:
    weights = RandomWeights("2B")
    name = "text.layers.0.mlp.down_proj.weight"
    once, again = weights.read(name), weights.read(name)
    assert once.shape == (1536, 8960)
    assert once.dtype == np.float32
    assert np.array_equal(once, again)
    assert not np.array_equal(once[0], once[1])
    assert once.std() == pytest.approx(0.02, rel=0.02)
    assert abs(weights.read("text.norm.weight").mean() - 1) < 0.01
