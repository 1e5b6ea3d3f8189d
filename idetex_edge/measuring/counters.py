"""Where a machine counts the energy that it takes: processors, NVIDIA GPUs, Jetson boards."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

POWERCAP: Final = Path("/sys/class/powercap")

_BOARD: Final = "VDD_IN"
"""The rail that feeds a whole Jetson module, where it has a sensor; else the others are added."""

_WITHIN: Final = ("VDDQ_VDD2_1V8AO",)
"""Rails that another one feeds (an AGX Orin's memory, by VIN_SYS_5V0)."""

_RAIL: Final = re.compile(r"(\w+) (\d+)mW/\d+mW")

_INTERVAL: Final = 100
"""Milliseconds between two readings of a Jetson's power."""


class Counter(Protocol):
    """Something that counts joules."""

    def read(self) -> float:
        """Joules since some moment in the past; never less than before."""
        ...


class Rapl:
    """A processor package's counter, Intel's or AMD's, through Linux (often only for root).

    It begins anew after some minutes; one such turn between two readings is allowed for, so that it
    must be read at least once a minute.
    """

    def __init__(self, counter: Path) -> None:
        self._counter = counter
        self._turn = int((counter.parent / "max_energy_range_uj").read_text())
        self._last, self._turns = int(counter.read_text()), 0

    def read(self) -> float:
        """See `Counter.read`."""
        now = int(self._counter.read_text())
        self._turns += now < self._last
        self._last = now
        return (now + self._turns * self._turn) / 1e6


class Nvml:
    """An NVIDIA card's own counter (nvmlDeviceGetTotalEnergyConsumption; from Volta on)."""

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:  # noqa: ANN401 (untyped)
        self._library, self._device = library, device

    def read(self) -> float:
        """See `Counter.read`."""
        millijoules = ctypes.c_ulonglong()
        self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(millijoules))
        return millijoules.value / 1e3


class Tegrastats:
    """A Jetson's power as `tegrastats` prints it, added up over time."""

    def __init__(self, lines: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Add up what lines say, each for the time until the next, in a thread of its own."""
        self._lines, self._clock = iter(lines), clock
        self._watts = watts_of(next(self._lines, ""))
        self._joules, self._since = 0.0, clock()
        self._lock = threading.Lock()
        threading.Thread(target=self._follow, daemon=True).start()

    def read(self) -> float:
        """See `Counter.read`."""
        with self._lock:
            self._add_up()
            return self._joules

    def _follow(self) -> None:
        for line in self._lines:
            with self._lock:
                self._add_up()
                self._watts = watts_of(line)

    def _add_up(self) -> None:
        now = self._clock()
        self._joules += self._watts * (now - self._since)
        self._since = now


def watts_of(line: str) -> float:
    """What a Jetson takes by a line of `tegrastats`, its `RAIL nowmW/averagemW` in watts."""
    rails = {name: int(milliwatts) / 1e3 for name, milliwatts in _RAIL.findall(line)}
    apart = [watts for name, watts in rails.items() if name not in _WITHIN]
    return rails.get(_BOARD, sum(apart))


def find_counters(
    powercap: Path = POWERCAP, load: Callable[[str], Any] = ctypes.CDLL
) -> list[Counter]:
    """Every counter of this machine that may be read; none in most guests.

    powercap: where Linux lists processors' counters. load: opens a shared library by its name. A
    Jetson's rails feed its processor and GPU, so nothing else is counted there.
    """
    tool = shutil.which("tegrastats")
    if tool is not None:
        return [_tegrastats(tool)]
    return [*_rapl(powercap), *_nvml(load)]


def _tegrastats(tool: str) -> Counter:
    process = subprocess.Popen(
        [tool, "--interval", str(_INTERVAL)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    counter = Tegrastats(process.stdout)
    # The thread that reads ends with its lines.
    weakref.finalize(counter, process.kill)
    return counter


def _rapl(folder: Path) -> Iterable[Counter]:
    for counter in sorted(folder.glob("intel-rapl:?/energy_uj")):
        try:
            yield Rapl(counter)
        except OSError:
            continue


def _nvml(load: Callable[[str], Any]) -> Iterable[Counter]:
    try:
        library = load("libnvidia-ml.so.1")
    except OSError:
        return
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for index in range(count.value):
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        if not library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)):
            yield Nvml(library, device)
