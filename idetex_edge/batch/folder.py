"""Assess many pictures on this machine into one table, going on where a stopped run was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from idetex_edge.assessor import Assessor
from idetex_edge.batch.report import write_report
from idetex_edge.batch.rows import Row, made_with, row_of
from idetex_edge.batch.tables import check_table, write_table
from idetex_edge.journal import Journal
from idetex_edge.pictures import Found

Advance: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


def assess_to_table(
    assessor: Assessor,
    pictures: Sequence[Found],
    output: Path,
    *,
    report: Path | None = None,
    advance: Advance = lambda stage, done, total: None,
) -> int:
    """Assess pictures into a table, a row each in their order; returns how many failed.

    output: a file that ends in .parquet, .jsonl or .csv. Pictures that cannot be assessed are rows
    with an `error`; a picture named twice is one row. Rows are kept in a journal beside the output
    from the moment they are there; a run that was killed goes on from it, and it is deleted when
    the table is whole. report: an HTML file about the table.

    Raises RequestError when the output is no table, OutputError when it cannot be written or the
    journal was begun with another bundle or engine.
    """
    check_table(output)
    found = {picture.path: picture for picture in pictures}
    failed = 0
    facts = made_with(assessor)
    journal_path = output.with_name(f".{output.name}.journal")
    with Journal(journal_path, facts) as journal:
        for done, (path, picture) in enumerate(found.items()):
            advance("assessing", done, len(found))
            if path not in journal:
                journal.add(path, row_of(assessor, picture))
        advance("assessing", len(found), len(found))

        def rows() -> Iterator[Row]:
            nonlocal failed
            failed = 0
            for path in found:
                row = journal[path]
                failed += row["error"] is not None
                yield row

        write_table(output, rows(), facts)
        if report is not None:
            write_report(report, rows(), facts)
    journal_path.unlink()
    return failed
