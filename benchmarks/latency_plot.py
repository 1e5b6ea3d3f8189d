"""End-to-end times as bars, a panel a scenario."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from idetex_edge.measuring.report import Report
from idetex_edge.measuring.scenarios import SCENARIOS


def plot(report: Report, path: Path) -> None:
    """Draw medians with lines from low to high; the file's type is that of its ending."""
    rows = [row for row in report.rows if row.metric == "end to end"]
    engines = list(dict.fromkeys(row.engine for row in rows))
    sizes = list(dict.fromkeys((row.model, row.size) for row in rows))
    drawing = Figure(figsize=(4 * len(SCENARIOS), 1.5 + 0.35 * len(engines) * len(sizes)))
    panels = drawing.subplots(1, len(SCENARIOS), sharey=True)
    for panel, scenario in zip(panels, SCENARIOS, strict=True):
        for index, engine in enumerate(engines):
            mine = [row for row in rows if (row.scenario, row.engine) == (scenario, engine)]
            places = [
                sizes.index((row.model, row.size)) + 0.8 * index / len(engines) for row in mine
            ]
            panel.barh(places, [row.median for row in mine], 0.7 / len(engines), label=engine)
            panel.hlines(
                places, [r.low for r in mine], [r.high for r in mine], "black", linewidth=1
            )
        panel.set_title(scenario)
        panel.set_xlabel("ms, end to end")
    panels[0].set_yticks(range(len(sizes)), [" ".join(size) for size in sizes])
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize="small")
    drawing.tight_layout()
    drawing.savefig(path)
