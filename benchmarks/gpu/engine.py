"""The `triton` engine as a whole: whether it says what its checkpoint says, and how fast it is.

nano is measured as it ships. A larger shape has random weights, which are made here, and answers
cut short, which is enough for time. Scenarios and metrics are those of `latency.py`; transformers
runs the same shape on the same GPU and writes as many tokens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers.catalogue import missing, peer_contender
from benchmarks.shapes import NANO, TEXT, RandomWeights, config_of
from export.bundling.graphs import EMBEDDING, GRAPHS, Recipe
from export.bundling.manifest import describe
from export.bundling.write import seal
from export.calibration.plan import Plan
from export.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint
from export.graphs.decoder import embedding_table
from export.graphs.write import Advance, write_tensor
from export.parity.answers import STEPS
from export.parity.measure import measure_parity
from export.parity.pictures import photographs
from export.parity.reference import Reference
from export.targets import find_target
from export.triton.add import add_triton
from idetex_edge.bundle import MANIFEST, TOKENIZER, Bundle
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.measuring.contenders import our_contender
from idetex_edge.measuring.measure import Plan as Turns
from idetex_edge.measuring.measure import measure
from idetex_edge.measuring.rows import Row, summarise
from idetex_edge.measuring.scenarios import SCENARIOS
from idetex_edge.triton.contents import read_contents
from kernels.build import build
from kernels.configurations import shape_of

SHAPES: Final = ("nano", *TEXT)
PEER: Final = "transformers-cuda"
ENGINE: Final = "triton"
_LONGEST: Final = 128
"""Tokens at which answers of random weights are cut."""
_SIZE: Final = (448, 448)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of whole engines.

    rows: by engine, scenario and metric, with the shape for a model. of_floor: by shape, the share
    that decoding reaches of the rate at which a copy could read the language model's weights; its
    KV cache, a few megabytes, is left out. agreement: by shape, of the likeliest next token, FP16
    against the checkpoint. missing: why the peer was not measured.
    """

    rows: tuple[Row, ...] = ()
    of_floor: Mapping[str, float] = field(default_factory=dict[str, float])
    agreement: Mapping[str, float] = field(default_factory=dict[str, float])
    missing: str | None = None

    def times(self, shape: str, scenario: str, metric: str) -> float:
        """How many times better than the peer; KeyError where that was not measured."""
        for row in self.rows:
            if (row.model, row.scenario, row.metric) == (shape, scenario, metric) and (
                row.engine == ENGINE and row.ratio_to_fastest_peer is not None
            ):
                return row.ratio_to_fastest_peer
        raise KeyError(shape, scenario, metric)


def measure_engine(
    shapes: tuple[str, ...],
    arch: str,
    work: Path,
    bandwidth: float,
    repeats: int,
    advance: Advance,
) -> Figures:
    """Make bundles of `shapes` in `work`, and measure them on the GPU of architecture `arch`.

    bandwidth: bytes a second of a copy. nano's answers in FP16 are compared with its checkpoint's.
    """
    rows: list[Row] = []
    of_floor: dict[str, float] = {}
    agreement: dict[str, float] = {}
    absent = missing(PEER)
    for shape in shapes:
        checkpoint = checkpoint_of(shape, work)
        if shape == "nano":
            bundle = gpu_bundle(checkpoint, work / "nano-fp16", "fp16", "float", arch, advance)
            agreement[shape] = agreement_of(bundle, checkpoint, advance)
        bundle = gpu_bundle(checkpoint, work / f"{shape}-int8", "int8", "int8", arch, advance)
        found = _timed(shape, bundle, checkpoint.folder, work, absent is None, repeats, advance)
        rows += found
        of_floor[shape] = _decode_rate(found) * bytes_of_step(bundle) / bandwidth
    return Figures(tuple(rows), of_floor, agreement, absent)


def checkpoint_of(shape: str, work: Path) -> Checkpoint:
    """Nano's checkpoint, or one of random weights that are drawn when they are read."""
    if shape == "nano":
        return open_checkpoint(NANO)
    folder = work / f"checkpoint-{shape}"
    shutil.copytree(
        NANO, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True
    )
    config = config_of(shape)
    config.save_pretrained(folder)
    return describe_checkpoint(folder, config, RandomWeights(shape))


def gpu_bundle(
    checkpoint: Checkpoint, folder: Path, precision: str, cache: str, arch: str, advance: Advance
) -> Bundle:
    """A bundle that has a part for GPUs alone, unless it is there: its graphs are empty files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = Recipe(checkpoint, *find_target("onnx-cpu", "int8"), Plan())
    shutil.copyfile(checkpoint.folder / TOKENIZER, folder / TOKENIZER)
    write_tensor(embedding_table(checkpoint, recipe.precision.embedding), folder, EMBEDDING)
    for file in GRAPHS.values():
        (folder / file).touch()
    bundle = seal(folder, describe(recipe, folder.name, "onnx-cpu", "int8"))
    kernels = folder.with_name(f"{folder.name}-kernels")
    shape = shape_of(folder / MANIFEST)
    build([arch], [shape], [precision], kernels, os.cpu_count() or 1, advance)
    return add_triton(bundle, checkpoint, kernels, precision, cache, Plan(), advance)


def agreement_of(bundle: Bundle, checkpoint: Checkpoint, advance: Advance) -> float:
    """How often engine and checkpoint hold the same token for the likeliest, over its answers."""
    pictures = photographs(None, 0).proof
    engine = TritonEngine(bundle)
    return measure_parity(
        Reference(checkpoint), bundle, engine, pictures, STEPS, advance
    ).top1_agreement


def bytes_of_step(bundle: Bundle) -> int:
    """What decoding a token reads of the language model's weights."""
    tensors = read_contents(bundle).tensors
    return sum(facts.bytes for name, facts in tensors.items() if name.startswith("text."))


def _timed(
    shape: str,
    bundle: Bundle,
    checkpoint: Path,
    work: Path,
    with_peer: bool,
    repeats: int,
    advance: Advance,
) -> list[Row]:
    threads = os.cpu_count() or 1
    contenders = [our_contender(bundle.path.absolute(), shape, ENGINE, threads)]
    if with_peer:
        places = (checkpoint.absolute(), bundle.path.absolute(), work)
        contenders.append(peer_contender(PEER, shape, *places, threads))
    scenarios = {
        name: scenario if shape == "nano" else scenario.limited(_LONGEST)
        for name, scenario in SCENARIOS.items()
    }
    series = measure(Turns(tuple(contenders), scenarios, (_SIZE,), repeats), advance)
    return summarise(series, frozenset({PEER}), {})


def _decode_rate(rows: list[Row]) -> float:
    wanted = (ENGINE, "describe128", "decode")
    return next(r.median for r in rows if (r.engine, r.scenario, r.metric) == wanted)
