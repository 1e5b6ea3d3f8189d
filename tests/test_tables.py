"""Folders to tables: every picture a row, whatever happens on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import run
from noise import save_noise
from prompted import with_prompts

from idetex_edge import Assessor, OutputError
from idetex_edge.batch.rows import COLUMNS
from idetex_edge.journal import Journal


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("tables") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of noise, and two files that only say that they are pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    save_noise(folder, 40)
    (folder / "07b.jpg").write_text("not a picture")
    (folder / os.fsdecode(b"08\xff.png")).write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def table(bundle: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run writes."""
    path = tmp_path_factory.mktemp("whole") / "table.parquet"
    assert run("assess", folder, "--output", path, bundle=bundle).code == 1
    return path


def from_parquet(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def from_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def from_csv(path: Path) -> list[dict[str, Any]]:
    """CSV knows only text: numbers and nested columns are JSON, what is empty is None."""
    words = {"path", "level", "description", "model", "error"}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                name: None if text == "" else text if name in words else json.loads(text)
                for name, text in row.items()
            }
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("suffix", "read"),
    [(".parquet", from_parquet), (".jsonl", from_json_lines), (".csv", from_csv)],
)
def test_rows_are_what_the_assessor_says(
    bundle: Path,
    folder: Path,
    tmp_path: Path,
    suffix: str,
    read: Callable[[Path], list[dict[str, Any]]],
) -> None:
    few = [folder / "00.png", folder / "07b.jpg", folder / "01.png", folder / "00.png", "gone.png"]
    output = tmp_path / f"table{suffix}"
    ran = run("assess", *few, "--output", output, bundle=bundle)
    assert (ran.code, ran.err) == (1, "")
    assert "2 pictures failed" in ran.out
    rows = read(output)
    assert [row["path"] for row in rows] == [str(path) for path in (*few[:3], "gone.png")]
    assessor = Assessor(bundle)
    for row in rows:
        assert list(row) == list(COLUMNS)
        if row["error"] is None:
            expected = json.loads(assessor.assess(row["path"]).to_json())
            del expected["timings"]
            assert row == expected | {"error": None}
        else:
            assert row["score"] is None
            assert row["model"] == assessor.model
    assert "not a picture" in rows[1]["error"]
    assert "no file 'gone.png'" in rows[3]["error"]
    assert list(tmp_path.iterdir()) == [output]


def test_every_picture_is_one_row_in_order(table: Path, folder: Path) -> None:
    rows = from_parquet(table)
    names = [Path(row["path"]).name for row in rows]
    expected = sorted(path.name for path in folder.iterdir())
    assert names == [name.encode("utf-8", "backslashreplace").decode() for name in expected]
    assert sum(row["error"] is not None for row in rows) == 2


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_run_goes_on(bundle: Path, folder: Path, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.parquet"
    journal = tmp_path / ".table.parquet.journal"
    command = [sys.executable, "-m", "idetex_edge", "assess", str(folder), "--output", str(output)]
    done: list[int] = []
    for wanted in (5, 20):
        process = subprocess.Popen([*command, "--bundle", str(bundle)], stdout=subprocess.DEVNULL)
        while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert not output.exists()
        done.append(journal.read_bytes().count(b"\n"))
    assert done[0] < done[1] < 42, "killed in the middle, twice"
    # As if the second kill had come in the middle of a line.
    with journal.open("ab") as file:
        file.write(b'{"name": "half')
    assert run("assess", folder, "--output", output, bundle=bundle).code == 1
    assert pq.read_table(output).equals(pq.read_table(table))
    assert pq.read_schema(output).metadata == pq.read_schema(table).metadata
    assert list(tmp_path.iterdir()) == [output]


def test_nothing_is_done_twice(bundle: Path, folder: Path, table: Path, tmp_path: Path) -> None:
    """Rows that the journal holds are taken from it, not from the pictures."""
    output = tmp_path / "table.jsonl"
    rows = from_parquet(table)[:2]
    made_with = json.loads(pq.read_schema(table).metadata[b"idetex_edge"])
    with Journal(tmp_path / ".table.jsonl.journal", made_with) as journal:
        for row in rows:
            journal.add(row["path"], row | {"score": 12.5})
    paths = [row["path"] for row in from_parquet(table)[:3]]
    assert run("assess", *paths, "--output", output, bundle=bundle).code == 0
    assert [row["score"] for row in from_json_lines(output)][:2] == [12.5, 12.5]


def test_another_bundles_journal_is_refused(bundle: Path, folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / ".table.csv.journal"
    with Journal(journal, {"bundle": "another"}):
        pass
    ran = run("assess", folder, "--output", tmp_path / "table.csv", bundle=bundle)
    assert ran.code == 1
    assert "another bundle" in ran.error
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "table.txt"], ".parquet, .jsonl, .csv"),
        (["--report", "report.html"], "--output"),
        (["--output", "table.csv", "--json"], "--json"),
    ],
)
def test_wrong_calls(folder: Path, options: list[str], words: str) -> None:
    ran = run("assess", folder, *options)
    assert ran.code == 2
    assert words in ran.error


def test_a_place_that_cannot_be_written(bundle: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "table.csv"
    ran = run("assess", folder / "00.png", "--output", output, bundle=bundle)
    assert ran.code == 1
    assert str(tmp_path / "file") in ran.error


def test_the_report_holds_what_the_table_holds(bundle: Path, folder: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "table.jsonl", tmp_path / "report.html"
    run("assess", folder, "--output", output, "--report", report, bundle=bundle)
    rows = [row for row in from_json_lines(output) if row["error"] is None]
    page = report.read_text("utf-8")
    assert "42 pictures, 2 failed" in page
    worst = sorted(rows, key=lambda row: row["score"])[:12]
    places = [page.index(f"{row['score']:.1f} {row['level']}  {row['path']}") for row in worst]
    assert places == sorted(places)
    assert page.count("data:image/jpeg;base64,") == 12
    assert "not a picture that can be read" in page
    assert "<script" not in page


def test_results_that_a_journal_holds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, {"a": "1"}) as journal:
        for number in range(5):
            journal.add(f"é{number}", {"n": number})
            assert journal["é0"] == {"n": 0}
    with Journal(path, {"a": "1"}) as journal:
        assert [journal[f"é{n}"]["n"] for n in range(5)] == [0, 1, 2, 3, 4]
        assert "é5" not in journal
    with pytest.raises(OutputError):
        Journal(path, {"a": "2"})
