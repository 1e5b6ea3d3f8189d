"""Joules above idle, from counters of processors, cards and Jetson boards as they tell them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from idetex_edge.measuring.counters import Nvml, Rapl, Tegrastats, find_counters, watts_of
from idetex_edge.measuring.energy import EnergyMeter

# As `tegrastats` prints on an Orin NX and on an AGX Orin with JetPack 6.
ORIN_NX = (
    "01-08-2025 10:26:12 RAM 2448/15388MB (lfb 4x4MB) SWAP 0/7694MB (cached 0MB) CPU "
    "[2%@729,0%@729,0%@729,1%@729,0%@729,0%@729,0%@729,0%@729] GR3D_FREQ 0% cpu@44.531C "
    "soc2@43.781C tj@45.187C VDD_IN 4544mW/4544mW VDD_CPU_GPU_CV 480mW/520mW VDD_SOC 1437mW/1440mW"
)
AGX_ORIN = (
    "01-08-2025 10:26:12 RAM 3032/62841MB (lfb 5x4MB) SWAP 0/31421MB (cached 0MB) CPU [1%@729,off] "
    "GR3D_FREQ 0% cpu@45C tj@46C VDD_GPU_SOC 2400mW/2390mW VDD_CPU_CV 400mW/399mW "
    "VIN_SYS_5V0 3023mW/3020mW VDDQ_VDD2_1V8AO 302mW/302mW"
)

# NVML as far as it is asked here; the second card is older than the counter.
NVML = """
static unsigned long long counted = 5000;
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)(long)(index + 1); return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
  if (device != (void *)1) return 3;
  *millijoules = counted += 1500; return 0;
}
"""


class Steady:
    """So many watts, by a clock that is moved by hand."""

    def __init__(self, watts: float) -> None:
        self.watts, self.now, self.joules = watts, 0.0, 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joules += self.watts * seconds

    def read(self) -> float:
        return self.joules


def test_idle_power_is_subtracted() -> None:
    machine = Steady(7.0)
    meter = EnergyMeter([machine], 3.0, lambda: machine.now, machine.sleep)
    assert meter.works
    assert meter.idle_watts == pytest.approx(7.0)
    machine.watts = 27.0
    machine.sleep(0.5)
    assert meter.joules() == pytest.approx(20.0 * 0.5)
    machine.watts = 7.0
    machine.sleep(10.0)
    assert meter.joules() == pytest.approx(0.0)


def test_a_machine_without_counters_is_not_waited_for() -> None:
    def fail(seconds: float) -> None:
        raise AssertionError(seconds)

    meter = EnergyMeter([], sleep=fail)
    assert not meter.works
    assert meter.joules() == 0.0


def test_processors_counters_begin_anew(tmp_path: Path) -> None:
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (folder / "max_energy_range_uj").write_text("1000000\n")
    (folder / "energy_uj").write_text("900000\n")
    (tmp_path / "intel-rapl:1").mkdir()
    (counter,) = find_counters(tmp_path, no_library)
    assert isinstance(counter, Rapl)
    first = counter.read()
    for microjoules, joules in ((950_000, 0.05), (50_000, 0.15), (60_000, 0.16), (10_000, 1.11)):
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        assert counter.read() - first == pytest.approx(joules)


def no_library(name: str) -> ctypes.CDLL:
    raise OSError(name)


@pytest.fixture
def nvml(tmp_path: Path) -> Callable[[int], Callable[[str], ctypes.CDLL]]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def built(init: int) -> Callable[[str], ctypes.CDLL]:
        (tmp_path / "nvml.c").write_text(NVML)
        library = tmp_path / f"nvml{init}.so"
        command = [compiler, "-shared", "-fPIC", f"-DINIT={init}", "nvml.c", "-o", str(library)]
        subprocess.run(command, cwd=tmp_path, check=True)

        def load(name: str) -> ctypes.CDLL:
            assert name == "libnvidia-ml.so.1"
            return ctypes.CDLL(str(library))

        return load

    return built


def test_cards_count_for_themselves(
    tmp_path: Path, nvml: Callable[[int], Callable[[str], ctypes.CDLL]]
) -> None:
    (counter,) = find_counters(tmp_path, nvml(0))
    assert isinstance(counter, Nvml)
    first = counter.read()
    assert counter.read() - first == pytest.approx(1.5)
    assert find_counters(tmp_path, nvml(9)) == []


@pytest.mark.parametrize(("line", "watts"), [(ORIN_NX, 4.544), (AGX_ORIN, 5.823), ("RAM 1/2MB", 0)])
def test_watts_of_a_board(line: str, watts: float) -> None:
    assert watts_of(line) == pytest.approx(watts)


def test_a_boards_power_is_added_up_over_time() -> None:
    now, asked, told = [0.0], Event(), Event()

    def lines() -> Iterator[str]:
        yield ORIN_NX
        asked.wait(60)
        yield AGX_ORIN
        told.set()

    counter = Tegrastats(lines(), lambda: now[0])
    now[0] = 10.0
    assert counter.read() == pytest.approx(45.44)
    now[0] = 12.0
    asked.set()
    assert told.wait(60)
    assert counter.read() == pytest.approx(12 * 4.544)
    now[0] = 13.0
    assert counter.read() == pytest.approx(12 * 4.544 + 5.823)


def test_a_jetsons_own_tool_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(
        f"#!/bin/sh\ntest $1 = --interval || exit\nwhile echo '{ORIN_NX}'; do sleep 0.01; done\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (counter,) = find_counters(tmp_path)
    first, began = counter.read(), time.monotonic()
    time.sleep(0.05)
    between = counter.read() - first
    assert 0.05 * 4.544 <= between <= (time.monotonic() - began) * 4.544
