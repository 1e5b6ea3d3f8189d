"""What the README says of speed is what was measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.performance_table import (
    BEGIN,
    END,
    README,
    RESULTS,
    performance_section,
    performance_table,
    with_section,
)
from idetex_edge.measuring.rates import Rates
from idetex_edge.measuring.report import Report
from idetex_edge.measuring.rows import Row


def report() -> Report:
    rows = (
        Row("score", "1x1", "ours", "m", "end to end", 20.0, 10.0, 1234.5, "ms"),
        Row("score", "1x1", "theirs", "m", "end to end", 30.0, 30.0, 30.0, "ms"),
        Row("score", "1x1", "ours", "m", "vision", 7.0, 7.0, 7.0, "ms"),
        Row("ask8", "1x1", "ours", "m", "end to end", 5.0, 5.0, 5.0, "ms"),
    )
    machine = {"processor": "P", "threads": 2}
    return Report("2020-01-02", "c", machine, Rates(1, 1, 1), rows, {"x": "gone"})


def test_the_readme_is_made_from_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_section(text, performance_section(RESULTS)) == text


def test_a_table_holds_every_end_to_end_figure() -> None:
    lines = performance_table(report()).splitlines()
    assert lines[0] == "2020-01-02, P, 2 threads; `c`"
    assert lines[2] == "| ms, end to end | ours | theirs |"
    assert lines[4] == "| m score 1x1 | 20 (10..1,234) | 30 (30..30) |"
    assert lines[5] == "| m ask8 1x1 | 5 (5..5) |  |"
    assert lines[6] == "Not measured: x (gone)."


def test_only_the_newest_day_is_shown(tmp_path: Path) -> None:
    for name in ("2020-01-01-old.json", "2020-01-02-a.json", "2020-01-02-b.json"):
        report().save(tmp_path / name)
    section = performance_section(tmp_path)
    assert section.count("| m score") == 2
    changed = with_section(f"front\n{BEGIN}\nstale\n{END}\nback\n", section)
    assert changed == f"front\n{section}\nback\n"
