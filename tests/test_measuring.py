from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from prompted import with_prompts
from rich.console import Console

from benchmarks.rate_graphs import rate_graph
from idetex_edge.bundle import open_bundle
from idetex_edge.errors import EngineError
from idetex_edge.measuring.contenders import Contender, our_contender, running
from idetex_edge.measuring.counters import find_counters
from idetex_edge.measuring.measure import ALL, Plan, measure
from idetex_edge.measuring.rates import GRAPHS, Rates, measure_rates
from idetex_edge.measuring.report import Report, tables
from idetex_edge.measuring.rooflines import rooflines
from idetex_edge.measuring.rows import Place, Row, summarise
from idetex_edge.measuring.scenarios import SCENARIOS, Scenario, description, picture

ECHO = """
import json, sys
from idetex_edge.measuring.worker import Measured, serve

class Echo:
    def run(self, scenario, picture):
        print("chatter")
        limits = [r.limit for r in scenario.requests]
        return Measured({"end to end": float(sum(limits))}, [l for l in limits if l])
    def peak_memory(self):
        return 5_000_000

serve(Echo)
"""
"""A peer that takes as long as it is asked for tokens."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def echo(name: str = "echo") -> Contender:
    return Contender(name, "tiny", (sys.executable, "-c", ECHO), peer=True)


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("bench") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def series(bundle: Path) -> dict[Place, list[float]]:
    ours = our_contender(bundle, "tiny", "onnx:cpu", 1)
    scenarios = {name: scenario.limited(9) for name, scenario in SCENARIOS.items()}
    return measure(Plan((ours, echo()), scenarios, ((64, 48),), 2), quiet)


def test_every_figure_is_taken(series: dict[Place, list[float]]) -> None:
    ours = {(p.scenario, p.metric): f for p, f in series.items() if p.engine == "onnx:cpu"}
    everywhere = {"vision", "first token", "end to end"}
    also = {
        "score": {"prefill"},
        "ask8": set[str](),
        "describe128": {"prefill", "decode"},
        "assess": {"decode"},
    }
    expected = {(name, metric) for name in SCENARIOS for metric in everywhere | also[name]}
    expected |= {(ALL, "load"), (ALL, "peak memory")}
    if find_counters():
        expected |= {(name, "energy") for name in SCENARIOS}
    assert set(ours) == expected
    assert all(figure > 0 for figures in ours.values() for figure in figures)
    for scenario in SCENARIOS:
        for vision, first, whole in zip(
            *(ours[scenario, m] for m in ("vision", "first token", "end to end")), strict=True
        ):
            assert vision < first <= whole


def test_peers_write_as_many_tokens_as_we_did(series: dict[Place, list[float]]) -> None:
    """Random weights never end an answer, so ours are as long as they may be."""
    told = {p.scenario: f for p, f in series.items() if p.engine == "echo" and p.scenario != ALL}
    assert told == {
        "score": [0.0, 0.0],
        "ask8": [0.0, 0.0],
        "describe128": [9.0, 9.0],
        "assess": told["assess"],
    }
    assert all(length >= 18 for length in told["assess"])


def test_forced_answers_have_just_the_length_asked_for(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture(64, 48).save(path)
    with running([our_contender(bundle, "tiny", "onnx:cpu", 1)]) as (process,):
        for length in (1, 2, 17):
            assert process.run(description(length), path).tokens == [length]
        assert process.run(SCENARIOS["ask8"], path).tokens == []


def test_a_contender_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = Contender("broken", "tiny", (sys.executable, "-c", "raise OSError('no such card')"))
    with running([broken]) as (process,), pytest.raises(EngineError, match=r"broken.*no such card"):
        process.run(SCENARIOS["score"], tmp_path)


def test_scenarios_survive_the_way_to_a_process() -> None:
    for scenario in SCENARIOS.values():
        assert Scenario.from_dict(json.loads(json.dumps(asdict(scenario)))) == scenario


def place(engine: str, metric: str, scenario: str = "score") -> Place:
    return Place(scenario, "1x1", engine, "m", metric)


def test_rows_compare_with_the_best_peer_and_the_roofline() -> None:
    figures = {
        place("ours", "end to end"): [10.0, 40.0, 20.0],
        place("slow", "end to end"): [90.0],
        place("fast", "end to end"): [50.0],
        place("ours", "decode"): [300.0],
        place("slow", "decode"): [100.0],
        place("fast", "decode"): [200.0],
        place("ours", "vision"): [5.0],
    }
    limits = {place("ours", "decode"): 400.0, place("ours", "vision"): 4.0}
    rows = summarise(figures, frozenset({"slow", "fast"}), limits)
    by_name = {(row.engine, row.metric): row for row in rows}
    ours = by_name["ours", "end to end"]
    assert (ours.median, ours.low, ours.high, ours.unit) == (20.0, 10.0, 40.0, "ms")
    assert ours.ratio_to_fastest_peer == 2.5
    assert by_name["slow", "end to end"].ratio_to_fastest_peer == pytest.approx(50 / 90, rel=1e-3)
    assert by_name["ours", "decode"].ratio_to_fastest_peer == 1.5
    assert by_name["ours", "decode"].roofline_fraction == 0.75
    assert by_name["ours", "vision"].roofline_fraction == 0.8
    assert by_name["ours", "vision"].ratio_to_fastest_peer is None
    assert by_name["fast", "decode"].roofline_fraction is None


def test_rooflines_grow_with_the_machine(tiny_bundle_path: Path) -> None:
    bundle = open_bundle(tiny_bundle_path)
    slow, fast = (
        rooflines(bundle, "onnx:cpu", "m", "score", (100, 80), Rates(r, 4 * r, r))
        for r in (1e9, 2e9)
    )
    assert {p.metric for p in slow} == {"vision", "prefill", "decode"}
    for at, limit in slow.items():
        assert fast[at] == pytest.approx(limit / 2 if at.metric == "vision" else limit * 2)


def test_a_report_reads_back_and_is_shown(tmp_path: Path) -> None:
    row = Row("score", "1x1", "ours", "m", "end to end", 2.0, 1.0, 3.0, "ms", 1.5, None)
    overall = Row("all", "", "ours", "m", "load", 2.0, 1.0, 3.0, "ms")
    report = Report("2020-01-02", "c", {"cores": 2}, Rates(1, 2, 3), (row, overall), {"x": "gone"})
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report
    kept = json.loads((tmp_path / "r.json").read_text())["rows"][0]
    assert list(kept) == [f.name for f in fields(Row)]

    shown = StringIO()
    Console(file=shown, width=120).print(tables(report))
    text = shown.getvalue()
    for part in ("score", "1x1", "2 ±50%", "1.50x", "x was not measured: gone", "energy"):
        assert part in text


def test_pictures_differ_by_one_pixel() -> None:
    first, second = (np.asarray(picture(60, 40, variant)) for variant in (1, 2))
    assert first.shape == (40, 60, 3)
    assert np.count_nonzero((first != second).any(-1)) == 1


@pytest.mark.parametrize("name", GRAPHS)
def test_rate_graphs_are_those_that_the_script_makes(name: str) -> None:
    assert GRAPHS[name].read_bytes() == rate_graph(name)


def test_rates_are_those_of_a_machine() -> None:
    rates = measure_rates(1)
    for rate in (rates.read, rates.int8, rates.float32):
        assert 1e6 < rate < 1e16
