"""Tables of rows as files: Parquet, JSON lines, CSV; whole or not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final

from idetex_edge.batch.rows import COLUMNS, Row
from idetex_edge.errors import RequestError
from idetex_edge.vocabulary import LEVELS
from idetex_edge.whole import whole_file

_GROUP: Final = 4096
"""Rows of Parquet that are held in memory and compressed together."""

_NESTED: Final = ("level_probabilities", "distortions", "key_distortions")


def check_table(path: Path) -> None:
    """Raise RequestError unless tables can be written to files of this name."""
    if path.suffix.lower() not in _WRITERS:
        known = ", ".join(_WRITERS)
        raise RequestError(f"{path.name!r} is no table that can be written; end it in {known}")
    if path.suffix.lower() == ".parquet":
        require_parquet()


def write_table(path: Path, rows: Iterable[Row], made_with: Mapping[str, str]) -> None:
    """Write a table in the format that its name ends in; what stood there is replaced when whole.

    made_with: kept in Parquet's metadata. Raises OutputError when it cannot be written.
    """
    with whole_file(path) as place:
        _WRITERS[path.suffix.lower()](place, rows, made_with)


def require_parquet() -> None:
    """Raise RequestError when pyarrow, which writes Parquet, is not installed."""
    if find_spec("pyarrow") is None:
        raise RequestError("writing Parquet needs pyarrow; pip install 'idetex-edge[tables]'")


def _parquet_schema(made_with: Mapping[str, str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    box = pa.list_(pa.int32())
    distortion = pa.struct(
        {
            "type": pa.string(),
            "severity": pa.string(),
            "box": box,
            "box_1000": box,
            "confidence": pa.float64(),
        }
    )
    types: dict[str, Any] = dict.fromkeys(COLUMNS, pa.string())
    types |= dict.fromkeys(("width", "height"), pa.int32())
    types |= dict.fromkeys(("score", "mos"), pa.float64())
    types |= dict.fromkeys(("distortions", "key_distortions"), pa.list_(distortion))
    types["level_probabilities"] = pa.struct(dict.fromkeys(LEVELS, pa.float64()))
    return pa.schema(types, {"idetex_edge": json.dumps(dict(made_with))})


def _write_parquet(path: Path, rows: Iterable[Row], made_with: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _parquet_schema(made_with)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    waiting = iter(rows)
    while group := list(islice(waiting, _GROUP)):
        yield group


def _write_json_lines(path: Path, rows: Iterable[Row], made_with: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _write_csv(path: Path, rows: Iterable[Row], made_with: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            nested = {n: None if row[n] is None else json.dumps(row[n]) for n in _NESTED}
            writer.writerow(row | nested)


_WRITERS: Final[Mapping[str, Callable[[Path, Iterable[Row], Mapping[str, str]], None]]] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
    ".csv": _write_csv,
}
