"""`idetex-edge doctor`: this machine and what works on it, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.table import Table

from idetex_edge.assessor import NANO
from idetex_edge.bundle import open_bundle
from idetex_edge.cli.options import AsJson, BundleName
from idetex_edge.cli.printing import print_json, print_view
from idetex_edge.doctor.gpu import Driver, ask_driver
from idetex_edge.doctor.machine import machine_facts
from idetex_edge.doctor.packages import clashes, installed
from idetex_edge.doctor.verdicts import Verdict, build_verdicts, engine_verdicts
from idetex_edge.hub import bundle_folder


def doctor(bundle: BundleName = None, as_json: AsJson = False) -> None:
    """What this machine has, which engines work on it, and what to install for the others."""
    opened = open_bundle(bundle_folder(NANO if bundle is None else bundle))
    machine, driver, packages = machine_facts(), ask_driver(), installed()
    engines, builds, wrong = engine_verdicts(opened), build_verdicts(), clashes(packages)
    if as_json:
        print_json(
            {
                "machine": machine,
                "driver": asdict(driver),
                "packages": packages,
                "engines": [verdict.to_dict() for verdict in engines],
                "builds": [verdict.to_dict() for verdict in builds],
                "clashes": wrong,
            }
        )
        return
    print_view(_table("this machine", [*machine.items(), *_gpu_rows(driver)]))
    print_view(_table("packages", list(packages.items())))
    print_view(_table(f"engines for {opened.manifest.name}", _rows(engines)))
    print_view(_table("TensorRT engines that can be built here", _rows(builds)))
    for clash in wrong:
        typer.secho(f"warning: {clash}", err=True, fg="yellow")


def _gpu_rows(driver: Driver) -> list[tuple[str, str]]:
    if driver.problem is not None:
        return [("gpu", f"none: {driver.problem}")]
    return [
        ("cuda", f"{driver.cuda} by the driver"),
        *(
            ("gpu", f"{gpu.name}, compute capability {gpu.capability}, {gpu.memory / 1e9:.1f} GB")
            for gpu in driver.gpus
        ),
    ]


def _rows(verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    return [(v.name, f"{'yes' if v.works else 'no'}: {v.reason}") for v in verdicts]


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(f"  {name}", value)
    return table
