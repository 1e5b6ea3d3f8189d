"""What the processor takes, where the machine can tell: Intel's and AMD's RAPL through Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")


class EnergyMeter:
    """Reads the energy counters of all processor packages."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        """Look for counters that may be read (often only by root, and seldom in a guest)."""
        self._counters = [c for c in sorted(folder.glob("intel-rapl:?/energy_uj")) if _readable(c)]
        self._last = self._read()

    @property
    def works(self) -> bool:
        """Whether this machine can tell."""
        return bool(self._counters)

    def joules(self) -> float:
        """Joules since the last call, or since the meter was made. Call at least once a minute.

        A counter begins anew after some minutes; one such turn between two calls is allowed for.
        """
        last, self._last = self._last, self._read()
        total = 0
        for counter, before, after in zip(self._counters, last, self._last, strict=True):
            turn = int((counter.parent / "max_energy_range_uj").read_text())
            total += after - before if after >= before else after - before + turn
        return total / 1e6

    def _read(self) -> list[int]:
        return [int(counter.read_text()) for counter in self._counters]


def _readable(counter: Path) -> bool:
    try:
        counter.read_text()
    except OSError:
        return False
    return True
