"""Leaving in float what costs too much accuracy: as few matrices as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from export.calibration.observe import Read
from export.calibration.plan import Plan
from export.parity.answers import Answering
from export.targets import Limits


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a quantised model agrees with the checkpoint on the pictures kept for comparison."""

    logits_error: float
    top1: float
    choices: float

    def keeps(self, limits: Limits) -> bool:
        """Whether it is inside the error budget."""
        return (
            self.logits_error <= limits.logits_error
            and self.top1 >= limits.top1_agreement
            and self.choices >= limits.choice_agreement
        )

    def __str__(self) -> str:
        return (
            f"top-1 agreement {self.top1:.4f}, choices {self.choices:.4f}, "
            f"logits error {self.logits_error:.4f}"
        )


def search(plan: Plan, limits: Limits, measure: Callable[[Plan], Agreement]) -> Plan:
    """Keep the matrices with the largest errors in the fallback form: none, 1, 2, 4, 8, ...

    Stops at the first number that keeps the limits; with all of them kept there is nothing left to
    try, and the proof of the bundle will tell.
    """
    order = sorted(plan.layers, key=lambda name: -plan.layers[name].error)
    count, tried = 0, plan
    while not (found := measure(tried)).keeps(limits) and count < len(order):
        count = min(max(1, 2 * count), len(order))
        tried = plan.keeping(
            {
                name: f"its error {plan.layers[name].error:.4f} is number {place + 1} of all, and "
                f"with fewer kept: {found}"
                for place, name in enumerate(order[:count])
            }
        )
    return tried


def agreement(answering: Answering, reads: Sequence[Read]) -> Agreement:
    """Let a model read the answers that the checkpoint has read, and compare."""
    error = scale = 0.0
    alike: list[float] = []
    chosen: list[float] = []
    for read in reads:
        ours = answering.repeat(read.answers, read.patched)
        for answer, mine, theirs in zip(read.answers, ours, read.logits, strict=True):
            error = float(np.maximum(error, np.abs(mine - theirs).max()))
            scale = float(np.maximum(scale, np.abs(theirs).max()))
            if answer.options:
                letters = list(answering.tokenizer.letter_ids(answer.options))
                chosen.append(mine[0, letters].argmax() == theirs[0, letters].argmax())
            else:
                alike += [float(a) for a in mine.argmax(-1) == theirs.argmax(-1)]
    return Agreement(error / scale, float(np.mean(alike)), float(np.mean(chosen)))
