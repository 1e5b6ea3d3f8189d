"""The command `idetex-edge evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from idetex_edge.assessor import Assessor
from idetex_edge.cli.options import BundleName, EngineName, Threads, open_assessor
from idetex_edge.cli.stages import showing_stages
from idetex_edge.engines import AUTO

Bench: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="Benchmark folder in ViDA-UGC-Bench's form: bench_metadata.json, reg-p_bench.json, "
        "mcq.json, images/."
    ),
]
Mos: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Table of photographs that people scored, tab-separated: file (relative to the "
        "table) and mos_0_1. Adds SRCC and PLCC."
    ),
]
Output: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="Folder for perception.json, grounding.json, description.json and scores.json. A "
        "stopped run given the same one goes on where it was."
    ),
]
Limit: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Take only the benchmark's first so many pictures.")
]


def evaluate(
    bench: Bench,
    output: Output,
    mos: Mos = None,
    limit: Limit = None,
    bundle: BundleName = None,
    engine: EngineName = AUTO,
    threads: Threads = None,
) -> None:
    """Score a bundle on a benchmark as the ViDA-UGC challenge does."""
    print_evaluation(open_assessor(bundle, engine, threads), bench, output, mos, limit)


def print_evaluation(
    assessor: Assessor, bench: Path, output: Path, mos: Path | None, limit: int | None
) -> None:
    """Evaluate with progress on stderr, and print the figures as tables."""
    # Imported here: no other command needs them.
    from idetex_edge.evaluation.evaluate import evaluate
    from idetex_edge.evaluation.report import report

    with showing_stages() as advance:
        found = evaluate(assessor, bench, output, mos=mos, limit=limit, advance=advance)
    console = Console(highlight=False)
    console.print(report(found))
    console.print(f"written to {output}")
