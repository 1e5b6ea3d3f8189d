"""The `triton` engine as a whole: whether it says what its checkpoint says, and how fast it is.

nano is measured as it ships. A larger shape has random weights, which are made here, and answers
cut short, which is enough for time. Scenarios and metrics are those of `latency.py`; transformers
runs the same shape on the same GPU and writes as many tokens.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.gpu.figures import ENGINE, PEER, Figures
from benchmarks.peers.catalogue import missing, peer_contender
from benchmarks.processes import last_words
from benchmarks.shapes import NANO, RandomWeights, config_of
from export.bundling.graphs import GRAPHS, Recipe
from export.bundling.manifest import describe
from export.bundling.write import seal, write_vocabulary
from export.calibration.plan import Plan
from export.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint
from export.graphs.write import Advance
from export.parity.answers import STEPS
from export.parity.measure import measure_parity
from export.parity.pictures import photographs
from export.parity.reference import Reference
from export.targets import find_target
from export.triton.add import add_triton
from idetex_edge.bundle import Bundle
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.errors import EngineError, ExportError
from idetex_edge.measuring.contenders import Contender, our_contender
from idetex_edge.measuring.measure import Plan as Turns
from idetex_edge.measuring.measure import measure
from idetex_edge.measuring.rows import Row, summarise
from idetex_edge.measuring.scenarios import SCENARIOS
from idetex_edge.triton.contents import read_contents

_LONGEST: Final = 128
"""Tokens at which answers of random weights are cut."""
_SIZE: Final = (448, 448)


def measure_engine(
    shapes: tuple[str, ...],
    arch: str,
    work: Path,
    bandwidth: float,
    repeats: int,
    advance: Advance,
) -> Iterator[Figures]:
    """Make bundles of `shapes` in `work`, and measure them on the GPU of architecture `arch`.

    bandwidth: bytes a second of a copy. nano's answers in FP16 are compared with its checkpoint's.
    Gives what there is after each part. Raises ExportError when kernels cannot be built for the
    GPU, EngineError when our engine fails; a peer that does is left out from there on.
    """
    figures = Figures(missing=missing(PEER))
    for shape in shapes:
        checkpoint = checkpoint_of(shape, work)
        if shape == "nano":
            bundle = gpu_bundle(checkpoint, work / "nano-fp16", "fp16", "float", arch, advance)
            agreement = agreement_of(bundle, checkpoint, advance)
            figures = replace(figures, agreement={**figures.agreement, shape: agreement})
            yield figures
        bundle = gpu_bundle(checkpoint, work / f"{shape}-int8", "int8", "int8", arch, advance)
        with_peer = figures.missing is None
        contenders = _contenders(shape, bundle, checkpoint.folder, work, with_peer)
        try:
            found = _timed(shape, contenders, repeats, advance)
        except EngineError as error:
            if not with_peer:
                raise
            # Whatever becomes of the peer, our own figures stand.
            figures = replace(figures, missing=str(error))
            found = _timed(shape, contenders[:1], repeats, advance)
        share = _decode_rate(found) * bytes_of_step(bundle) / bandwidth
        figures = replace(
            figures,
            rows=(*figures.rows, *found),
            of_floor={**figures.of_floor, shape: share},
        )
        yield figures


def checkpoint_of(shape: str, work: Path) -> Checkpoint:
    """Nano's checkpoint, or one of random weights that are drawn when they are read."""
    if shape == "nano":
        return open_checkpoint(NANO)
    folder = work / f"checkpoint-{shape}"
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = config_of(shape)
    config.save_pretrained(folder)
    return describe_checkpoint(folder, config, RandomWeights(shape))


def gpu_bundle(
    checkpoint: Checkpoint, folder: Path, precision: str, cache: str, arch: str, advance: Advance
) -> Bundle:
    """A bundle that has a part for GPUs alone: its graphs are empty files."""
    folder.mkdir(parents=True)
    recipe = Recipe(checkpoint, *find_target("onnx-cpu", "int8"), Plan())
    write_vocabulary(recipe, folder)
    for file in GRAPHS.values():
        (folder / file).touch()
    bundle = seal(folder, describe(recipe, folder.name, "onnx-cpu", "int8"))
    kernels = folder.with_name(f"{folder.name}-kernels")
    build_kernels(folder, arch, precision, kernels)
    return add_triton(bundle, checkpoint, kernels, precision, cache, Plan(), advance)


def build_kernels(bundle: Path, arch: str, precision: str, output: Path) -> None:
    """Compile a bundle's kernels in a process that has not touched the GPU: its workers are forks.

    Raises ExportError with its last words where it fails.
    """
    options = ("--bundle", bundle, "--arch", arch, "--precision", precision, "--output", output)
    call = [sys.executable, "-m", "kernels", "build", *map(str, options)]
    if (last := last_words(call)) is not None:
        raise ExportError(f"kernels cannot be built for {arch}: {last.removeprefix('error: ')}")


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


def _contenders(
    shape: str, bundle: Bundle, checkpoint: Path, work: Path, with_peer: bool
) -> tuple[Contender, ...]:
    threads = os.cpu_count() or 1
    ours = our_contender(bundle.path.absolute(), shape, ENGINE, threads)
    if not with_peer:
        return (ours,)
    places = (checkpoint.absolute(), bundle.path.absolute(), work)
    return ours, peer_contender(PEER, shape, *places, threads)


def _timed(
    shape: str, contenders: tuple[Contender, ...], repeats: int, advance: Advance
) -> list[Row]:
    scenarios = {
        name: scenario if shape == "nano" else scenario.limited(_LONGEST)
        for name, scenario in SCENARIOS.items()
    }
    series = measure(Turns(contenders, scenarios, (_SIZE,), repeats), advance)
    return summarise(series, frozenset({PEER}), {})


def _decode_rate(rows: list[Row]) -> float:
    wanted = (ENGINE, "describe128", "decode")
    return next(r.median for r in rows if (r.engine, r.scenario, r.metric) == wanted)
