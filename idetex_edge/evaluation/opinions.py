"""Photographs that people scored: a table of them, and how a bundle's scores agree with it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idetex_edge.errors import RequestError

_FILE: Final = "file"
_MOS: Final = "mos_0_1"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What people think of one photograph.

    file: its name in the table. path: where it lies. mos: mean opinion score, 0 worst .. 1 best.
    """

    file: str
    path: Path
    mos: float


def read_opinions(table: Path) -> Sequence[Opinion]:
    """Read a table of tab-separated columns `file` (relative to the table) and `mos_0_1`.

    Rows without a score are skipped, other columns ignored. Raises RequestError when the table or
    a photograph is missing, or when a score is not in 0..1.
    """
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines, delimiter="\t")
            if not {_FILE, _MOS} <= set(rows.fieldnames or ()):
                raise RequestError(f"{table} must have tab-separated columns {_FILE} and {_MOS}")
            opinions = [_opinion(row, table) for row in rows if row[_MOS]]
    except (OSError, UnicodeError) as error:
        raise RequestError(f"cannot read {table}: {error}") from None
    if not opinions:
        raise RequestError(f"{table} has no row with a {_MOS}; fill in what people said")
    return opinions


def _opinion(row: dict[str, str], table: Path) -> Opinion:
    file, written = row[_FILE], row[_MOS]
    try:
        mos = float(written)
    except ValueError:
        mos = math.nan
    if not 0 <= mos <= 1:
        raise RequestError(f"{table} gives {file} the {_MOS} {written}; it must be 0..1")
    path = table.parent / file
    if not path.is_file():
        raise RequestError(f"{table} lists {file}, which is not there; paths start at the table")
    return Opinion(file, path, mos)
