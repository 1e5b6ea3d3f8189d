"""Writes the README's performance table from the figures in `benchmarks/results/`.

    python benchmarks/performance_table.py

Each file there named DAY-WHAT.json is what `latency.py --json` wrote; the tables stand between two
comments in the README, the newest day's files first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from idetex_edge.measuring.report import Report, figure
from idetex_edge.measuring.rows import Row
from idetex_edge.measuring.scenarios import SCENARIOS

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- made by benchmarks/performance_table.py: begin -->"
END: Final = "<!-- made by benchmarks/performance_table.py: end -->"


def performance_table(report: Report) -> str:
    """A Markdown table: end-to-end medians of one report, a column for each engine and peer."""
    rows = [row for row in report.rows if row.metric == "end to end"]
    engines = list(dict.fromkeys(row.engine for row in rows))
    lines = list(dict.fromkeys((row.model, row.scenario, row.size) for row in rows))
    lines.sort(key=lambda line: (line[0], line[2], list(SCENARIOS).index(line[1])))
    cells = {(row.model, row.scenario, row.size, row.engine): _cell(row) for row in rows}
    header = ["ms, end to end", *engines]
    table = [
        [
            f"{model} {scenario} {size}",
            *(cells.get((model, scenario, size, e), "") for e in engines),
        ]
        for model, scenario, size in lines
    ]
    processor = f"{report.machine['processor']}, {report.machine['threads']} threads"
    missing = [f"Not measured: {name} ({why})." for name, why in report.missing.items()]
    about = f"{report.day}, {processor}; `{report.command}`"
    return "\n".join([about, "", *_markdown([header, ["---"] * len(header), *table]), *missing])


def performance_section(results: Path) -> str:
    """The tables of all reports of the newest day, between the two comments."""
    files = sorted(results.glob("[0-9]*.json"))
    day = max(path.name[:10] for path in files)
    tables = [performance_table(Report.load(p)) for p in files if p.name.startswith(day)]
    return "\n\n".join([BEGIN, *tables, END])


def with_section(text: str, section: str) -> str:
    """A README with its section replaced."""
    before, rest = text.split(BEGIN)
    return before + section + rest.split(END)[1]


def _cell(row: Row) -> str:
    return f"{figure(row.median)} ({figure(row.low)}..{figure(row.high)})"


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in table]


def main() -> None:
    """Write the README anew."""
    text = with_section(README.read_text(encoding="utf-8"), performance_section(RESULTS))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
