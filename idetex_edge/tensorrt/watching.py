"""How far a builder is: TensorRT tells of phases within phases, each of so many steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Phases:
    """The phases that are under way, the outermost first, as steps done of steps to do."""

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}

    def begin(self, name: str, steps: int) -> None:
        """A phase begins within the one that began last."""
        self._steps[name] = [0, max(steps, 1)]

    def step(self, name: str, index: int) -> None:
        """A phase has done the step of that index."""
        if name in self._steps:
            self._steps[name][0] = index + 1

    def end(self, name: str) -> None:
        """A phase ends."""
        self._steps.pop(name, None)

    @property
    def share(self) -> float:
        """How much is done of the outermost phase, 0..1."""
        share = 0.0
        for done, steps in reversed(self._steps.values()):
            share = min(1.0, (done + share) / steps)
        return share


def watcher(trt: Any, told: Callable[[float], None]) -> Any:  # noqa: ANN401 (an untyped module)
    """What a builder is given to report to; calls `told` with the share that is done."""

    class Watcher(trt.IProgressMonitor):
        """TensorRT's own names for what happens."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases.begin(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._phases.step(phase_name, step)
            told(self._phases.share)
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.end(phase_name)

    return Watcher()
