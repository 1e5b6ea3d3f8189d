"""The course of one training stage: a budget in minutes, averaged weights, a log, a checkpoint.

A stage survives being stopped: its file in the run folder holds weights, averaged weights,
optimiser and clock, and is replaced atomically every few minutes.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from export.training.averaging import Average
from export.training.optimiser import Optimiser
from idetex_edge.errors import ExportError

_WARMUP: Final = 0.02
_FLOOR: Final = 0.03
GOING_ON: Final = 0.35
"""The share of a stage's rate at which trained weights learn on; at all of it they lose for half of
the time what they know, and come back to it in the other."""

_LOG_SECONDS: Final = 20.0
_SAVE_SECONDS: Final = 300.0
_CHECK_SHARE: Final = 0.1
"""The most of the time that validation takes between the first one and the last; on a slow machine
it may last for minutes."""

Clock = Callable[[], float]
"""Seconds since some moment."""

Validate = Callable[[Any], Mapping[str, object]]
"""Given the model with averaged weights, its figures by name."""


class Course:
    """Counts, logs, averages and saves the training of `model` for so many minutes in all.

    Files are `run`/`name`.pt, written every five minutes, and `run`/`name`.jsonl, which gets a line
    every 20 s and one with `checks` at every validation: whenever the other is written, or less
    often where a validation takes long. With `leads` false, neither is written: another process of
    the team does that. `clock` gives seconds: what passes on the wall, or with
    `time.process_time` what this process has of its core, whatever else runs beside.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        minutes: float,
        model: nn.Module,
        optimiser: Optimiser,
        leads: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._file, self._log = run / f"{name}.pt", run / f"{name}.jsonl"
        self._budget = minutes * 60
        self._model, self._optimiser, self._leads = model, optimiser, leads
        self._clock = clock
        self.seconds = 0.0
        self.step = self.pictures = 0
        self._logged = self._saved = self._checked = self._check_cost = 0.0
        self._losses: list[Mapping[str, float]] = []

    def begin(self, start: Callable[[], None]) -> None:
        """Go on from the stage's file; where there is none, `start` gives the first weights.

        Raises ExportError where another version wrote the file.
        """
        state = torch.load(self._file, weights_only=True) if self._file.exists() else None
        if state:
            put_into(self._model, state["model"], self._file)
            self._optimiser.load(state["optimiser"])
            self.step, self.pictures = state["step"], state["pictures"]
            self.seconds = self._logged = self._saved = self._checked = state["seconds"]
        else:
            start()
        self._average = Average(self._model)
        if state:
            self._average.load(state["average"])
        self._shadow = copy.deepcopy(self._model)
        self._at = self._clock()

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.seconds >= self._budget

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0..1."""
        return min(1.0, self.seconds / self._budget)

    def rate(self, peak: float) -> float:
        """Linear warm-up, then half a cosine down to a few percent of `peak`."""
        share = self.share
        ramp = min(1.0, (self.step + 1) / 100, share / _WARMUP + 0.05)
        return peak * ramp * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * share)))

    def tick(self) -> float:
        """Count the time since the last step; returns the seconds in all, this process's.

        A team goes by their mean (`team.average_gradients`), which every member puts into `seconds`
        before it advances: all of them save, validate and stop at the same step.
        """
        now = self._clock()
        self.seconds += now - self._at
        self._at = now
        return self.seconds

    def advance(self, pictures: int, losses: Mapping[str, float], validate: Validate) -> None:
        """Count one step of so many pictures; log, validate and save when it is time to."""
        self.step += 1
        self.pictures += pictures
        self._average.update(self._model)
        self._losses.append(losses)
        saves = self.done or self.seconds - self._saved >= _SAVE_SECONDS
        since = self.seconds - self._checked
        checks = self.done or (saves and since >= self._check_cost / _CHECK_SHARE)
        if saves or self.seconds - self._logged >= _LOG_SECONDS:
            self._logged = self.seconds
            if self._leads:
                self._write(validate if checks else None)
            self._losses.clear()
        if checks:
            self._checked = self.seconds
            self._check_cost = self._clock() - self._at
        if saves:
            self._saved = self.seconds
            if self._leads:
                self._save()

    def _write(self, validate: Validate | None) -> None:
        line: dict[str, object] = {
            "step": self.step,
            "pictures": self.pictures,
            "minutes": round(self.seconds / 60, 2),
        }
        for name in dict.fromkeys(name for losses in self._losses for name in losses):
            values = [losses[name] for losses in self._losses if name in losses]
            line[name] = round(sum(values) / len(values), 4)
        if validate:
            self._shadow.load_state_dict(self._average.weights)
            line["checks"] = validate(self._shadow)
        with self._log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        partial = self._file.with_suffix(".partial")
        state = {
            "model": self._model.state_dict(),
            "average": self._average.state(),
            "optimiser": self._optimiser.state(),
            "step": self.step,
            "pictures": self.pictures,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(self._file)


def put_into(module: nn.Module, weights: Mapping[str, torch.Tensor], file: Path) -> None:
    """Load a module's weights, which stand in `file`.

    Raises ExportError where there are others than it has, or of other shapes.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ExportError(
            f"{file} has other weights than this version trains, another made it; give a new run "
            "folder, and --start CHECKPOINT to go on"
        ) from error


def averaged_weights(file: Path) -> dict[str, torch.Tensor]:
    """The averaged weights in a stage's file."""
    return torch.load(file, weights_only=True)["average"]["weights"]
