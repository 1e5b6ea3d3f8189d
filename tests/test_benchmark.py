from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idetex_edge.errors import RequestError
from idetex_edge.evaluation.benchmark import Label, open_benchmark
from idetex_edge.evaluation.opinions import read_opinions

METADATA = [
    {
        "id": 7,
        "image": "a.png",
        "level": "poor",
        "mos": 1.9,
        "distortions": [
            {
                "distortion": "Noise",
                "severity": "severe",
                "coordinates": [1, 2, 3, 4],
                "significance_score": 4.5,
                "visual_manifestation": "grain",
            },
            {"distortion": "Low clarity", "coordinates": None},
        ],
    },
    {"image": "b.png", "level": "good"},
]
REGIONS = [
    {
        "id": 3,
        "image": "b.png",
        "question": "What distortion affects <|box_start|>(1,20),(300,1000)<|box_end|>?",
        "distortions": [],
    }
]
QUESTIONS = [
    {
        "id": 0,
        "image": "../somewhere/else/a.png",
        "concern": "type",
        "question": "What is it?",
        "candidates": ["Noise", "Motion blur"],
        "correct_ans": "Noise",
    }
]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).touch()
    write(tmp_path, "bench_metadata", METADATA)
    write(tmp_path, "reg-p_bench", REGIONS)
    write(tmp_path, "mcq", QUESTIONS)
    return tmp_path


def write(folder: Path, name: str, data: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(data))


def changed(records: list[dict[str, Any]], **changes: object) -> list[dict[str, Any]]:
    return [records[0] | changes, *records[1:]]


def test_a_benchmark_with_more_and_less_than_is_needed(bench: Path) -> None:
    found = open_benchmark(bench)
    first, second = found.pictures
    assert (first.id, first.image, first.path) == (7, "a.png", bench / "images" / "a.png")
    assert first.labels == (Label("Noise", (1, 2, 3, 4), 4.5), Label("Low clarity", None, 0))
    assert (second.id, second.level, second.labels) == (1, "good", ())
    assert found.regions[0].box == (1, 20, 300, 1000)
    question = found.questions[0]
    assert (question.image, question.written_image) == ("a.png", "../somewhere/else/a.png")
    assert question.candidates == ("Noise", "Motion blur")


def test_the_first_pictures_and_what_is_asked_about_them(bench: Path) -> None:
    found = open_benchmark(bench, limit=1)
    assert [picture.image for picture in found.pictures] == ["a.png"]
    assert (len(found.regions), len(found.questions)) == (0, 1)


def test_missing_and_broken_files(bench: Path) -> None:
    (bench / "mcq.json").write_text("[{")
    with pytest.raises(RequestError, match=r"mcq\.json is not JSON"):
        open_benchmark(bench)
    write(bench, "mcq", {"questions": []})
    with pytest.raises(RequestError, match="is not a list of JSON objects"):
        open_benchmark(bench)
    (bench / "mcq.json").unlink()
    with pytest.raises(RequestError, match=r"has no mcq\.json"):
        open_benchmark(bench)
    (bench / "images" / "b.png").unlink()
    with pytest.raises(RequestError, match=r"names b\.png, which is not in"):
        open_benchmark(bench)


@pytest.mark.parametrize(
    ("file", "records", "message"),
    [
        ("bench_metadata", changed(METADATA, level=""), "record 0, has no level"),
        ("bench_metadata", changed(METADATA, image=None), "record 0, has no image"),
        ("bench_metadata", changed(METADATA, image="b.png"), "more than once, such as 'b.png'"),
        ("bench_metadata", changed(METADATA, distortions="Noise"), "not a list of JSON objects"),
        (
            "bench_metadata",
            changed(METADATA, distortions=[{"distortion": "Noise", "coordinates": [1, 2, 3]}]),
            r"places 'Noise' at \[1, 2, 3\]",
        ),
        ("reg-p_bench", changed(REGIONS, question="What is wrong?"), "which has no box"),
        ("reg-p_bench", changed(REGIONS, image="c.png"), r"c\.png, which bench_metadata\.json"),
        ("reg-p_bench", REGIONS * 2, "has ids more than once, such as 3"),
        ("mcq", changed(QUESTIONS, candidates=["one"]), "has no candidates"),
        ("mcq", changed(QUESTIONS, correct_ans=None), "has no correct_ans"),
    ],
)
def test_records_that_make_no_sense(
    bench: Path, file: str, records: list[dict[str, Any]], message: str
) -> None:
    write(bench, file, records)
    with pytest.raises(RequestError, match=message):
        open_benchmark(bench)


def test_a_table_of_opinions(bench: Path) -> None:
    table = bench / "mos.tsv"
    table.write_text("source\tfile\tmos_0_1\nx\timages/a.png\t0.25\nx\timages/none.png\t\n")
    (opinion,) = read_opinions(table)
    assert (opinion.file, opinion.mos) == ("images/a.png", 0.25)
    assert opinion.path.samefile(bench / "images" / "a.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\tmos\nimages/a.png\t1\n", "must have tab-separated columns file and mos_0_1"),
        ("file\tmos_0_1\nimages/a.png\t3.5\n", "must be 0..1"),
        ("file\tmos_0_1\nimages/a.png\tgood\n", "must be 0..1"),
        ("file\tmos_0_1\na.png\t0.5\n", r"a\.png, which is not there"),
        ("file\tmos_0_1\nimages/a.png\t\n", "has no row"),
        ("", "must have tab-separated columns"),
    ],
)
def test_tables_that_make_no_sense(bench: Path, text: str, message: str) -> None:
    table = bench / "mos.tsv"
    with pytest.raises(RequestError, match=r"cannot read .*mos\.tsv"):
        read_opinions(table)
    table.write_text(text)
    with pytest.raises(RequestError, match=message):
        read_opinions(table)
