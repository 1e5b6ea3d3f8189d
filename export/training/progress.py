"""How far a training run has come: a budget in minutes that survives being stopped."""

import math
import time
from pathlib import Path
from typing import Any, Final

import torch

_WARMUP: Final = 0.02
_FLOOR: Final = 0.03
_CHECK_SECONDS: Final = 300.0


class Progress:
    """Counts steps, pictures and seconds; the learning rate follows the share of time spent."""

    def __init__(self, minutes: float) -> None:
        self._budget = minutes * 60
        self.seconds = 0.0
        self._at = time.monotonic()
        self._checked = 0.0
        self.step = 0
        self.pictures = 0

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.seconds >= self._budget

    def advance(self, pictures: int) -> bool:
        """Count one step; true when it is time to validate and save."""
        now = time.monotonic()
        self.seconds += now - self._at
        self._at = now
        self.step += 1
        self.pictures += pictures
        due = self.seconds - self._checked >= _CHECK_SECONDS
        if due:
            self._checked = self.seconds
        return due

    def set_rate(self, optimiser: torch.optim.Optimizer, peak: float) -> None:
        """Linear warm-up, then half a cosine down to a few percent of `peak`.

        A parameter group may scale it by its own `scale`.
        """
        share = min(1.0, self.seconds / self._budget)
        ramp = min(1.0, (self.step + 1) / 100, share / _WARMUP + 0.05)
        fall = _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = peak * ramp * fall * group.get("scale", 1.0)

    def state(self) -> dict[str, float]:
        """For a checkpoint and for the log."""
        return {
            "step": self.step,
            "pictures": self.pictures,
            "minutes": round(self.seconds / 60, 2),
        }

    def load(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.step, self.pictures = int(state["step"]), int(state["pictures"])
        self.seconds = self._checked = state["minutes"] * 60


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, then put it there: a kill leaves the old one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
