"""Measuring contenders in turn, A B A B, so that whatever else the machine does meets all alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from idetex_edge.measuring.contenders import Answer, Contender, Running, load_time, running
from idetex_edge.measuring.energy import EnergyMeter
from idetex_edge.measuring.rows import Place
from idetex_edge.measuring.scenarios import SCENARIOS, Scenario, picture

ALL: Final = "all"
"""The scenario of figures that depend on none."""

_LOADS: Final = 3
_SMALL: Final = (56, 56)

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: contenders (the first is ours), scenarios by name, sizes, repeats.

    Peers are given as many tokens to write as our engine wrote in the same repeat.
    """

    contenders: tuple[Contender, ...]
    scenarios: Mapping[str, Scenario]
    sizes: tuple[tuple[int, int], ...]
    repeats: int


def measure(plan: Plan, advance: Advance) -> dict[Place, list[float]]:
    """Figures of every contender, a list of all repeats for each; raises EngineError."""
    series: dict[Place, list[float]] = defaultdict(list)
    meter = EnergyMeter()
    with TemporaryDirectory() as folder:
        _measure_loads(plan, Path(folder), series, advance)
        with running(plan.contenders) as processes:
            for size in plan.sizes:
                for name, scenario in plan.scenarios.items():
                    # The first turn warms up and is not counted.
                    for turn in range(plan.repeats + 1):
                        advance(f"{name} {_text(size)}", turn, plan.repeats + 1)
                        path = _painted(Path(folder), size, turn)
                        found = _turn(processes, scenario, path, meter)
                        for process, answer in found if turn else ():
                            _note(series, process.contender, name, _text(size), answer)
                    advance(f"{name} {_text(size)}", plan.repeats + 1, plan.repeats + 1)
            for process in processes:
                answer = process.run(SCENARIOS["score"], _painted(Path(folder), _SMALL, 0))
                place = _overall(process.contender, "peak memory")
                series[place].append(answer.peak_memory / 1e6)
    return dict(series)


def _measure_loads(
    plan: Plan, folder: Path, series: dict[Place, list[float]], advance: Advance
) -> None:
    path = _painted(folder, _SMALL, 0)
    for turn in range(_LOADS):
        advance("load", turn, _LOADS)
        for contender in plan.contenders:
            taken = load_time(contender, SCENARIOS["score"], path)
            series[_overall(contender, "load")].append(taken)
    advance("load", _LOADS, _LOADS)


def _turn(
    processes: Sequence[Running], scenario: Scenario, path: Path, meter: EnergyMeter
) -> list[tuple[Running, Answer]]:
    """Have every contender answer once."""
    found: list[tuple[Running, Answer]] = []
    asked = scenario
    for process in processes:
        meter.joules()
        answer = process.run(asked if process.contender.peer else scenario, path)
        if meter.works:
            answer.figures["energy"] = meter.joules()
        if not found:
            asked = as_long(scenario, answer.tokens)
        found.append((process, answer))
    return found


def as_long(scenario: Scenario, tokens: Sequence[int]) -> Scenario:
    """The same requests with answers forced to so many tokens, one number for each written one."""
    lengths = iter(tokens)
    requests = tuple(
        replace(request, limit=next(lengths)) if request.limit else request
        for request in scenario.requests
    )
    return Scenario(requests, forced=True)


def _note(
    series: dict[Place, list[float]], contender: Contender, scenario: str, size: str, answer: Answer
) -> None:
    for metric, figure in answer.figures.items():
        place = Place(scenario, size, contender.name, contender.model, metric)
        series[place].append(figure)


def _overall(contender: Contender, metric: str) -> Place:
    return Place(ALL, "", contender.name, contender.model, metric)


def _painted(folder: Path, size: tuple[int, int], variant: int) -> Path:
    path = folder / f"{_text(size)}-{variant}.png"
    if not path.exists():
        picture(*size, variant).save(path)
    return path


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
