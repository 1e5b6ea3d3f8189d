"""A measurement as it is kept and as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from idetex_edge.measuring.rates import Rates
from idetex_edge.measuring.rows import Row

_SHOWN: Final = ("vision", "first token", "prefill", "decode", "end to end", "energy")


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured: where, by which command, the machine's rates, every figure.

    missing: contenders that were asked for and were not measured, and why.
    """

    day: str
    command: str
    machine: Mapping[str, Any]
    rates: Rates
    rows: tuple[Row, ...]
    missing: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in data.pop("rows"))
        return cls(rates=Rates(**data.pop("rates")), rows=rows, **data)


def today() -> str:
    """The day in ISO form."""
    return date.today().isoformat()


def tables(report: Report) -> RenderableType:
    """A table for each model and size: medians with their spread, a line a scenario and engine."""
    places = dict.fromkeys((row.model, row.size) for row in report.rows if row.size)
    notes = [f"{name} was not measured: {reason}" for name, reason in report.missing.items()]
    if not any(row.metric == "energy" for row in report.rows):
        notes.append("energy was not measured: this machine has no counters that may be read")
    compared = any(row.ratio_to_fastest_peer is not None for row in report.rows)
    return Group(
        *(
            _table([r for r in report.rows if (r.model, r.size) == place], ", ".join(place))
            for place in places
        ),
        _overall([row for row in report.rows if not row.size]),
        Text("roof: the share of what the machine allows", "dim"),
        *([Text("x: times better than the best peer", "dim")] if compared else []),
        Text(_rates(report.rates), "dim"),
        *(Text(note, "dim") for note in notes),
    )


def figure(value: float) -> str:
    """Three digits, or all in front of the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    lines = {(row.scenario, row.engine): dict[str, Row]() for row in rows}
    for row in rows:
        lines[row.scenario, row.engine][row.metric] = row
    shown = [metric for metric in _SHOWN if any(metric in line for line in lines.values())]
    units = {row.metric: row.unit for row in rows}
    several = len({row.engine for row in rows}) > 1
    for name in ("scenario", "engine") if several else ("scenario",):
        table.add_column(name)
    for metric in shown:
        table.add_column(f"{metric}\n{units[metric]}", justify="right")
    for (scenario, engine), line in lines.items():
        names = (scenario, engine) if several else (scenario,)
        table.add_row(*names, *(_cell(line.get(metric)) for metric in shown))
    return table


def _cell(row: Row | None) -> Text:
    """A median with half the spread in per cent; below it what it is compared with."""
    if row is None:
        return Text("")
    spread = (row.high - row.low) / 2 / row.median
    notes: list[str] = []
    if row.roofline_fraction is not None:
        notes.append(f"{row.roofline_fraction:.0%} roof")
    if row.ratio_to_fastest_peer is not None:
        notes.append(f"{row.ratio_to_fastest_peer:.2f}x")
    below = "".join(f"\n{note}" for note in notes)
    return Text.assemble(figure(row.median), (f" ±{spread:.0%}{below}", "dim"), no_wrap=True)


def _overall(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("model", "engine", "load, ms", "peak memory, MB"):
        table.add_column(name)
    by_engine = {(row.model, row.engine): dict[str, Row]() for row in rows}
    for row in rows:
        by_engine[row.model, row.engine][row.metric] = row
    for key, line in by_engine.items():
        table.add_row(*key, _cell(line.get("load")), _cell(line.get("peak memory")))
    return table


def _rates(rates: Rates) -> str:
    return (
        f"this machine reads {rates.read / 1e9:.1f} GB/s and multiplies "
        f"{rates.int8 / 1e9:,.0f} GOP/s in 8 bits, {rates.float32 / 1e9:,.0f} GFLOP/s in float32"
    )
