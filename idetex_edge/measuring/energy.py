"""What answering takes of a machine's energy, above what the machine takes anyway.

The method: all counters of `counters.find_counters` are added up. Before anything is started the
machine is left alone for some seconds, and what it takes then is its idle power. From what is
counted while something runs, idle power for as long is subtracted. What remains is the work's own,
and that of whatever else runs: measure on a machine that is otherwise idle. Counters of processors
and cards leave out mains adapter, screen, fans and, mostly, memory; a Jetson's are of its module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from idetex_edge.measuring.counters import Counter, find_counters

_REST: Final = 3.0
"""Seconds for which idle power is measured."""


class EnergyMeter:
    """Joules above idle, from every counter that this machine has."""

    def __init__(
        self,
        counters: Sequence[Counter] | None = None,
        rest: float = _REST,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Measure idle power for `rest` seconds, during which the machine is to do nothing.

        counters: None for all that this machine has. A machine without any is not waited for.
        """
        self._counters = find_counters() if counters is None else counters
        self._clock = clock
        self.idle_watts = 0.0
        self._last = self._read()
        if self.works:
            sleep(rest)
            before, self._last = self._last, self._read()
            self.idle_watts = (self._last[1] - before[1]) / (self._last[0] - before[0])

    @property
    def works(self) -> bool:
        """Whether this machine can tell."""
        return bool(self._counters)

    def joules(self) -> float:
        """Joules above idle since the last call, or since the meter was made.

        A little below zero where nothing was done. To be called at least once a minute, since
        counters begin anew.
        """
        before, self._last = self._last, self._read()
        elapsed = self._last[0] - before[0]
        return self._last[1] - before[1] - self.idle_watts * elapsed

    def _read(self) -> tuple[float, float]:
        return self._clock(), sum(counter.read() for counter in self._counters)
