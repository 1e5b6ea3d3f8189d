"""Kernels and the `triton` engine on this machine's GPU: whether they are right, and how fast.

    python benchmarks/kernels.py [--no-kernels] [--shapes nano,3B]
        [--output benchmarks/results/kernels-NAME.json]

Correctness comes first: each kernel against its float64 reference, and nothing is timed when one
is wrong. Then times beside floors that are measured in the same run (bytes over a copy's bandwidth,
operations over the rate of torch's matrix product) and beside the same in torch, eager, through
torch.compile or SDPA: medians over `--repeats` CUDA graphs of eight launches each, with a cold L2
cache. Then the whole engine in `--shapes` (`--shapes ""` for none), against
transformers on the same GPU. Prints tables, and what became of each goal, and writes it as JSON.

Without a GPU it says so and exits with code 3.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import torch
import typer
from rich.console import Console
from rich.table import Table

from idetex_edge.cli.script import run
from idetex_edge.errors import RequestError

if TYPE_CHECKING:
    from benchmarks.gpu.case import Case
    from export.graphs.write import Advance

SHAPES: Final = ("nano", "3B")
"""nano, and Qwen2.5-VL-3B with random weights."""
NO_GPU: Final = 3
"""The exit code when there is nothing to measure on."""


def kernels(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Times that launches are timed.")] = 50,
    launches: Annotated[
        bool, typer.Option("--kernels/--no-kernels", help="Whether to measure single kernels.")
    ] = True,
    shapes: Annotated[str, typer.Option(help="Whole engines, with commas.")] = "nano",
    turns: Annotated[int, typer.Option(min=1, help="Times that engines answer.")] = 5,
) -> None:
    """Check and time every kernel on this machine's GPU, then the whole engine."""
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing was measured", file=sys.stderr)
        raise SystemExit(NO_GPU)
    # Imported here: Triton wants a driver or its interpreter, and has no build for some platforms.
    from benchmarks.gpu.cases import plans
    from benchmarks.gpu.figures import Figures
    from benchmarks.gpu.goals import judged
    from benchmarks.gpu.rows import Row, measured
    from benchmarks.gpu.timing import measure_floors
    from idetex_edge.cli.stages import showing_stages
    from kernels.arches import SHARED_LIMITS

    wanted = tuple(name for name in shapes.split(",") if name)
    if unknown := sorted(set(wanted) - set(SHAPES)):
        raise RequestError(f"unknown shape {unknown[0]!r}; known are {', '.join(SHAPES)}")
    torch.manual_seed(0)
    device = torch.cuda.get_device_properties(0)
    arch = f"sm_{device.major}{device.minor}"
    if wanted and arch not in SHARED_LIMITS:
        raise RequestError(f"kernels are not built for {arch}; leave engines out: --shapes ''")
    facts = _facts(device)
    rows: dict[str, Row] = {}

    def keep(figures: Figures) -> None:
        # After each figure: what fails later takes none of them along.
        facts["kernels"] = [asdict(row) for row in rows.values()]
        facts["engine"] = asdict(figures)
        facts["goals"] = [{**asdict(goal), "met": goal.met} for goal in judged(rows, figures)]
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(facts, indent=1) + "\n")

    figures = Figures()
    try:
        with showing_stages() as advance:
            floors = measure_floors(repeats)
            facts["floors"] = asdict(floors)
            keep(figures)
            every = _made(plans("cuda", device.multi_processor_count), advance) if launches else {}
            facts["errors"] = errors = _errors(every, advance)
            keep(figures)
            _require_right(every, errors)
            for done, (name, case) in enumerate(every.items(), 1):
                rows[name] = measured(name, case, float(errors[name]), floors, repeats)
                keep(figures)
                advance("timing", done, len(every))
            every.clear()
            torch.cuda.empty_cache()
            if wanted:
                from benchmarks.gpu.engine import measure_engine

                with TemporaryDirectory() as folder:
                    where = (arch, Path(folder), floors.bandwidth)
                    for figures in measure_engine(wanted, *where, turns, advance):
                        keep(figures)
    finally:
        _show(facts)


def _show(facts: Mapping[str, Any]) -> None:
    """Print what there is, however far it came."""
    if "floors" not in facts:
        return
    console, floors = Console(), facts["floors"]
    told = ", ".join(f"{kind} {rate / 1e12:.0f} T/s" for kind, rate in floors["rates"].items())
    bandwidth = floors["bandwidth"] / 1e9
    console.print(f"{facts['device']}: copies {bandwidth:.0f} GB/s, products {told}")
    for table in (_kernels(facts), _engine(facts), _goals(facts)):
        if table.row_count:
            console.print(table)


def _facts(device: Any) -> dict[str, Any]:  # noqa: ANN401 (torch does not name the type)
    """What every figure is stated with."""
    return {
        "command": " ".join(("python benchmarks/kernels.py", *sys.argv[1:])),
        "device": device.name,
        "multiprocessors": device.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "versions": {name: version(name) for name in ("torch", "triton", "transformers")},
    }


def _made(plans: Mapping[str, Callable[[], Case]], advance: Advance) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for done, (name, make) in enumerate(plans.items(), 1):
        found[name] = make()
        advance("making cases", done, len(plans))
    return found


def _errors(cases: Mapping[str, Case], advance: Advance) -> dict[str, float | str]:
    """Every case's error, or what it failed with."""
    from benchmarks.gpu.rows import error, told

    errors: dict[str, float | str] = {}
    for done, (name, case) in enumerate(cases.items(), 1):
        try:
            errors[name] = error(case)
        except Exception as problem:
            # The next may run all the same, and one run is to tell of all.
            errors[name] = told(problem)
        advance("checking", done, len(cases))
    return errors


def _require_right(cases: Mapping[str, Case], errors: Mapping[str, float | str]) -> None:
    """End with exit code 1 where a kernel failed, or its error is too large."""
    wrong = 0
    for name, case in cases.items():
        found = errors[name]
        if isinstance(found, str):
            print(f"error: {name} failed: {found}", file=sys.stderr)
        elif not found <= case.tolerance:
            print(f"error: {name} is off by {found:.1e}", file=sys.stderr)
        else:
            continue
        wrong += 1
    if wrong:
        raise SystemExit(1)


def _driver() -> str | None:
    """The driver's version; None where the kernel module does not tell it."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0].strip() if os.access(path, os.R_OK) else None


def _kernels(facts: Mapping[str, Any]) -> Table:
    table = Table("kernel", "error", "us", "floor us", "of floor", "torch, us")
    for row in facts["kernels"]:
        table.add_row(
            row["name"],
            f"{row['error']:.1e}",
            f"{row['microseconds']:.1f}",
            f"{row['floor']:.1f}",
            f"{row['share']:.0%}",
            ", ".join(f"{how} {took:.1f}" for how, took in row["peers"].items())
            + "".join(f" {how} failed" for how in row["failed"]),
        )
    return table


def _engine(facts: Mapping[str, Any]) -> Table:
    table = Table("shape", "engine", "scenario", "metric", "median", "low", "high", "ratio")
    for row in facts["engine"]["rows"]:
        ratio = row["ratio_to_fastest_peer"]
        table.add_row(
            *(row[name] for name in ("model", "engine", "scenario", "metric")),
            *(f"{row[name]:.4g} {row['unit']}" for name in ("median", "low", "high")),
            "" if ratio is None else f"{ratio:.2f}",
        )
    return table


def _goals(facts: Mapping[str, Any]) -> Table:
    table = Table("goal", "at least", "reached", "met")
    for goal in facts["goals"]:
        told = ("not measured", "") if goal["ratio"] is None else (f"{goal['ratio']:.2f}", "no")
        if goal["met"]:
            told = (told[0], "yes")
        table.add_row(goal["name"], f"{goal['least']:.2f}", *told)
    return table


if __name__ == "__main__":
    # A script's folder comes first on the path, and in it this file hides the package of its name.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    run(kernels)
