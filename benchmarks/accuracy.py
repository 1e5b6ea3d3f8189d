"""Accuracy on a benchmark in ViDA-UGC-Bench's form, of a bundle or of a checkpoint.

    python benchmarks/accuracy.py --bench DIR --bundle BUNDLE --output OUT
    python benchmarks/accuracy.py --bench DIR --checkpoint CHECKPOINT --output OUT

The same as `idetex-edge evaluate`, and beyond it takes a checkpoint: converted to a temporary FP32
bundle, which conversion proves against transformers before it runs, it answers through the same
code as every bundle. So the difference to a bundle's figures is what its number format costs.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from idetex_edge import Assessor, RequestError
from idetex_edge.cli.evaluate import Bench, Limit, Mos, Output, print_evaluation
from idetex_edge.cli.options import BundleName, EngineName, Threads, open_assessor
from idetex_edge.cli.script import run
from idetex_edge.cli.stages import showing_stages
from idetex_edge.engines import AUTO


def accuracy(
    bench: Bench,
    output: Output,
    mos: Mos = None,
    limit: Limit = None,
    bundle: BundleName = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder (Qwen2-VL, Qwen2.5-VL) instead of a bundle."),
    ] = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
) -> None:
    """Score a bundle or a checkpoint on a benchmark as the ViDA-UGC challenge does."""
    if checkpoint is None:
        print_evaluation(open_assessor(bundle, engine, threads), bench, output, mos, limit)
        return
    if bundle is not None:
        raise RequestError("--bundle and --checkpoint exclude each other; give one of them")
    with TemporaryDirectory() as folder:
        converted = _convert(checkpoint, Path(folder) / "bundle")
        assessor = Assessor(converted, engine=engine, threads=threads)
        print_evaluation(assessor, bench, output, mos, limit)


def _convert(checkpoint: Path, bundle: Path) -> Path:
    # Imported here: torch and transformers take seconds, and bundles do without them.
    from transformers.utils import logging

    from export.convert import Conversion, convert

    logging.disable_progress_bar()
    with showing_stages() as advance:
        convert(Conversion(checkpoint, bundle), advance)
    return bundle


if __name__ == "__main__":
    run(accuracy)
