"""`benchmarks/kernels.py` from its cases to its tables and JSON, with a clock that stands still."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.gpu import cases, engine, figures, layers, rows, timing
from benchmarks.gpu.case import Case
from benchmarks.gpu.figures import Figures

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernels.py"
NAME = "linear int8, 1 x 4096 -> 11008"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, under a name that hides no package, on a pretended GPU."""
    spec = spec_from_file_location("benchmark_of_kernels", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    properties = SimpleNamespace(name="Orin", major=8, minor=7, multi_processor_count=16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def properties_of(device: int) -> SimpleNamespace:
        return properties

    monkeypatch.setattr("torch.cuda.get_device_properties", properties_of)
    floors = timing.Floors(100e9, {"fp16": 1e12, "bf16": 1e12, "int8": 2e12})

    def floors_of(repeats: int) -> timing.Floors:
        return floors

    monkeypatch.setattr(timing, "measure_floors", floors_of)

    def stands(work: Callable[[], object], repeats: int) -> float:
        work()
        return 1e-6

    monkeypatch.setattr(rows, "seconds", stands)

    def plans(device: str, processors: int) -> dict[str, Callable[[], Case]]:
        assert (device, processors) == ("cuda", 16)
        return {NAME: lambda: layers.linear_case("int8", 1, 64, 128, "cpu", processors)}

    monkeypatch.setattr(cases, "plans", plans)
    return module


def test_everything_is_kept(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "results" / "orin.json"

    def measured(*given: object) -> Iterator[Figures]:
        assert given[:2] == (("3B",), "sm_87")
        kept = json.loads(output.read_text())
        assert [row["name"] for row in kept["kernels"]] == [NAME], "kept before engines begin"
        yield Figures(of_floor={"3B": 0.7})

    monkeypatch.setattr(engine, "measure_engine", measured)
    script.kernels(output, repeats=3, launches=True, shapes="3B", turns=1)
    kept = json.loads(output.read_text())
    (row,) = kept["kernels"]
    assert row["error"] < 2e-3
    assert row["peers"] == {"torch": 1.0}
    assert row["microseconds"] == 1.0
    reached = [goal["name"] for goal in kept["goals"] if goal["met"] is not None]
    assert len(reached) == 2
    assert (kept["device"], kept["multiprocessors"]) == ("Orin", 16)
    told = capsys.readouterr().out
    assert NAME in told
    assert "copies 100 GB/s" in told


def test_nothing_is_timed_where_a_kernel_is_wrong(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing() -> torch.Tensor:
        raise RuntimeError("out of resources")

    def wrong(*_: object) -> dict[str, Callable[[], Case]]:
        return {
            "off": lambda: Case(lambda: torch.ones(3), lambda: torch.zeros(3) + 2, 12),
            "failing": lambda: Case(failing, lambda: torch.ones(3), 12),
            "right": lambda: Case(lambda: torch.ones(3), lambda: torch.ones(3), 12),
        }

    monkeypatch.setattr(cases, "plans", wrong)
    with pytest.raises(SystemExit) as ended:
        script.kernels(tmp_path / "wrong.json", 3, True, "", 1)
    assert ended.value.code == 1
    kept = json.loads((tmp_path / "wrong.json").read_text())
    assert kept["errors"] == {
        "off": 0.5,
        "failing": "RuntimeError: out of resources",
        "right": 0.0,
    }
    assert kept["kernels"] == []
    assert capsys.readouterr().err == (
        "error: off is off by 5.0e-01\nerror: failing failed: RuntimeError: out of resources\n"
    )


def test_a_peer_that_fails_is_told(script: ModuleType, tmp_path: Path) -> None:
    def broken() -> torch.Tensor:
        raise RuntimeError("no such kernel\nand more")

    case = Case(lambda: torch.ones(3), lambda: torch.ones(3), 12, peers={"torch": broken})
    row = rows.measured("x", case, 0.0, timing.measure_floors(1), 3)
    assert row.peers == {}
    assert row.failed == {"torch": "RuntimeError: no such kernel"}


def test_engines_alone_and_unknown_shapes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> Iterator[Figures]:
        yield Figures(agreement={"nano": 1})

    monkeypatch.setattr(engine, "measure_engine", measured)
    script.kernels(tmp_path / "out.json", 3, False, "nano", 1)
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["kernels"] == []
    assert kept["engine"]["agreement"] == {"nano": 1}
    assert figures.ENGINE == "triton"
    with pytest.raises(Exception, match="unknown shape '9B'"):
        script.kernels(None, 3, False, "9B", 1)
