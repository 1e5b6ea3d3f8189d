"""How fast this package is, and how fast others are on the same checkpoint and picture.

    python benchmarks/latency.py [--bundle B | --checkpoint C | --shape 0.4B] [--engines onnx:cpu]
        [--peers transformers,openvino-int8] [--sizes 448x448,1280x720] [--threads N]
        [--repeats N] [--json OUT] [--plot OUT]

Without arguments: nano on our engines, in under two minutes. `--checkpoint` is converted to INT8
first; `--shape` makes a checkpoint of random weights. Both are kept in `runs/latency` for the next
time. Peers are those of `benchmarks/peers` (`--peers all` for all of them); they need a checkpoint,
for nano the one in `checkpoints/nano`, and one that is not installed is named as missing. Scenarios
and metrics are told in `idetex_edge/measuring/scenarios.py`; contenders take turns, and peers write
as many tokens as we wrote.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from benchmarks.latency_checkpoints import CHECKPOINTS, SHAPES, bundle_of, random_checkpoint
from benchmarks.latency_plot import plot as draw
from benchmarks.peers.catalogue import PEERS, missing, on_processors, peer_contender
from benchmarks.processes import ROOT, last_words
from idetex_edge import RequestError
from idetex_edge.assessor import NANO
from idetex_edge.bundle import open_bundle
from idetex_edge.cli.options import Threads
from idetex_edge.cli.script import run
from idetex_edge.cli.stages import showing_stages
from idetex_edge.measuring.benchmark import REPEATS, Subject, benchmark
from idetex_edge.measuring.contenders import Contender
from idetex_edge.measuring.report import tables
from idetex_edge.measuring.scenarios import SIZES

WORK: Final = ROOT / "runs" / "latency"
_NANO_CHECKPOINT: Final = CHECKPOINTS / "nano"
_SIZES: Final = ",".join(f"{width}x{height}" for width, height in SIZES)
_LONGEST: Final = 96
"""Tokens at which answers of random weights are cut."""


def latency(
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder; nano if not given.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint folder, converted to INT8 for onnx-cpu.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help=f"Random checkpoint: {', '.join(SHAPES)}.")
    ] = None,
    engines: Annotated[str, typer.Option(help="Our engines, with commas.")] = "onnx:cpu",
    peers: Annotated[
        str, typer.Option(help=f"With commas, or all that need no GPU: {', '.join(PEERS)}.")
    ] = "",
    sizes: Annotated[str, typer.Option(help="Pictures, with commas.")] = _SIZES,
    threads: Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each figure is taken.")] = REPEATS,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the end-to-end times here.")] = None,
) -> None:
    """Measure how fast a model is on this machine, and how fast its peers."""
    cores = threads or os.cpu_count() or 1
    wanted = on_processors() if peers == "all" else [name for name in peers.split(",") if name]
    if unknown := sorted(set(wanted) - set(PEERS)):
        raise RequestError(f"unknown peer {unknown[0]!r}; known are {', '.join(PEERS)}")
    if shape is not None and shape not in SHAPES:
        raise RequestError(f"unknown shape {shape!r}; known are {', '.join(SHAPES)}")
    if sum(option is not None for option in (bundle, checkpoint, shape)) > 1:
        raise RequestError("--bundle, --checkpoint and --shape exclude each other; give one")
    pictures = _read_sizes(sizes)
    with showing_stages() as advance:
        source = checkpoint if bundle is None and shape is None else None
        if shape is not None:
            source = random_checkpoint(shape, WORK)
        elif bundle is None and checkpoint is None:
            bundle, source = NANO, _NANO_CHECKPOINT
        if bundle is None:
            assert source is not None
            bundle = bundle_of(source, WORK, advance)
        if wanted and source is None:
            raise RequestError("peers run checkpoints; give --checkpoint instead of --bundle")
        absent = {name: reason for name in wanted if (reason := missing(name)) is not None}
        model = shape or open_bundle(bundle).manifest.name
        present = tuple(
            _prepared(name, model, source, bundle, cores)
            for name in wanted
            if name not in absent and source is not None
        )
        subject = Subject(model, bundle, present, _LONGEST if shape else None, pictures)
        command = " ".join(("python benchmarks/latency.py", *sys.argv[1:]))
        found = benchmark([subject], engines.split(","), cores, repeats, command, advance, absent)
    if out is not None:
        found.save(out)
    if plot is not None:
        draw(found, plot)
    Console(highlight=False).print(tables(found))


def _read_sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [tuple(map(int, size.split("x"))) for size in text.split(",")]
        return tuple((width, height) for width, height in pairs)
    except ValueError:
        raise RequestError(f"--sizes {text!r} is not WIDTHxHEIGHT, with commas") from None


def _prepared(name: str, model: str, checkpoint: Path, bundle: Path, threads: int) -> Contender:
    """A peer whose files are made of the checkpoint, now if they were not before."""
    peer = PEERS[name]
    folder = WORK / "peers" / checkpoint.name
    if peer.prepare is not None:
        script = f"benchmarks.peers.{peer.prepare}"
        call = [str(peer.python), "-m", script, str(checkpoint.absolute()), str(folder)]
        if (last := last_words(call)) is not None:
            raise RequestError(f"{name} cannot take {checkpoint}: {last}")
    return peer_contender(name, model, checkpoint.absolute(), bundle.absolute(), folder, threads)


if __name__ == "__main__":
    run(latency)
