"""The benchmark from contenders to report; `benchmarks/latency.py` adds peers and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idetex_edge.bundle import open_bundle
from idetex_edge.measuring.contenders import Contender, our_contender
from idetex_edge.measuring.machine import describe_machine
from idetex_edge.measuring.measure import Advance, Plan, measure
from idetex_edge.measuring.rates import measure_rates
from idetex_edge.measuring.report import Report, today
from idetex_edge.measuring.rooflines import rooflines
from idetex_edge.measuring.rows import Place, summarise
from idetex_edge.measuring.scenarios import SCENARIOS, SIZES, Scenario

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure: its name, its bundle, and the contenders beside our engines.

    longest: the most tokens of an answer, for models that never end one by themselves. sizes: of
    the pictures.
    """

    model: str
    bundle: Path
    peers: tuple[Contender, ...] = ()
    longest: int | None = None
    sizes: tuple[tuple[int, int], ...] = SIZES

    def scenarios(self) -> dict[str, Scenario]:
        """The scenarios, with answers cut to `longest`."""
        if self.longest is None:
            return dict(SCENARIOS)
        return {name: s.limited(self.longest) for name, s in SCENARIOS.items()}


def benchmark(
    subjects: Sequence[Subject],
    engines: Sequence[str],
    threads: int,
    repeats: int,
    command: str,
    advance: Advance,
    missing: Mapping[str, str] | None = None,
) -> Report:
    """Measure engines of ours, and each subject's peers, on every subject.

    Raises EngineError when a contender fails.
    """
    series: dict[Place, list[float]] = {}
    limits: dict[Place, float] = {}
    peers: set[str] = set()
    rates = measure_rates(threads)
    for subject in subjects:
        ours = [our_contender(subject.bundle, subject.model, e, threads) for e in engines]
        plan = Plan((*ours, *subject.peers), subject.scenarios(), subject.sizes, repeats)
        series |= measure(plan, advance)
        bundle = open_bundle(subject.bundle)
        for engine in engines:
            for name, scenario in plan.scenarios.items():
                if len(scenario.requests) == 1:
                    for size in subject.sizes:
                        limits |= rooflines(bundle, engine, subject.model, name, size, rates)
        peers |= {peer.name for peer in subject.peers}
    rows = summarise(series, frozenset(peers), limits)
    machine = describe_machine(threads)
    return Report(today(), command, machine, rates, tuple(rows), dict(missing or {}))
