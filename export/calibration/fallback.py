"""Leaving inputs in float that cost too much accuracy: of as few matrices as the budget allows.

What a matrix's own rounding error does to the answers cannot be told from that error: a rare
outlier at the right place spoils them, and a large error elsewhere does not. So effects are
measured, where answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from export.calibration.observe import Read
from export.calibration.plan import Plan
from export.graphs.write import Advance
from export.parity.answers import Answering
from export.targets import Limits
from idetex_edge.engines.protocol import Floats

BUDGET: Final = 0.5
"""Share of what the limits allow that calibration may use up on the few pictures that it compares:
the proof is on others, which disagree more."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a quantised model agrees with the checkpoint on the pictures kept for comparison.

    divergence: of its next-token distributions from the checkpoint's, mean over all steps, nats.
    """

    logits_error: float
    top1: float
    choices: float
    divergence: float

    def within(self, limits: Limits) -> bool:
        """Whether it is inside the error budget."""
        return (
            self.logits_error <= BUDGET * limits.logits_error
            and 1 - self.top1 <= BUDGET * (1 - limits.top1_agreement)
            and 1 - self.choices <= BUDGET * (1 - limits.choice_agreement)
        )

    def __str__(self) -> str:
        return (
            f"top-1 agreement {self.top1:.4f}, choices {self.choices:.4f}, "
            f"logits error {self.logits_error:.4f}"
        )


def search(
    plan: Plan, limits: Limits, measure: Callable[[Plan], Agreement], advance: Advance
) -> Plan:
    """Keep the fewest more matrices in the fallback form with which the budget is kept.

    Blocks are ranked by how much nearer each one, put back alone, brings the answers; halving finds
    how many are needed, and then every matrix of theirs that can do without goes back to 8 bits.
    Where all of them together do not suffice, all are kept, and the proof of the bundle will tell.
    """
    whole = measure(plan)
    if whole.within(limits):
        return plan
    loose = [name for name, layer in plan.layers.items() if not layer.kept]

    def with_kept(names: Iterable[str]) -> Agreement:
        return measure(plan.keeping(dict.fromkeys(names, "tried")))

    if not (best := with_kept(loose)).within(limits):
        return plan.keeping(dict.fromkeys(loose, f"with all of them kept: {best}"))
    blocks = _blocks(loose)
    gains: dict[str, float] = {}
    for block, names in blocks.items():
        advance("looking for what must stay in float", len(gains), len(blocks))
        gains[block] = whole.divergence - with_kept(names).divergence
    order = sorted(blocks, key=lambda block: -gains[block])
    failing, enough = 0, len(order)
    while enough - failing > 1:
        middle = (failing + enough) // 2
        if with_kept(_names(order[:middle], blocks)).within(limits):
            enough = middle
        else:
            failing = middle
    # The smallest errors first: they are the likeliest to be borne.
    suspects = sorted(_names(order[:enough], blocks), key=lambda name: plan.layers[name].error)
    kept, needed = set(suspects), dict[str, str]()
    for done, name in enumerate(suspects):
        advance("looking for what need not stay in float", done, len(suspects))
        without = with_kept(kept - {name})
        if without.within(limits):
            kept.remove(name)
        else:
            block = _block(name)
            needed[name] = (
                f"{block} is number {order.index(block) + 1} of {len(order)} by effect, "
                f"{gains[block]:.1e} nats nearer with it kept; without this matrix: {without}"
            )
    return plan.keeping(needed)


def agreement(answering: Answering, reads: Sequence[Read]) -> Agreement:
    """Let a model read the answers that the checkpoint has read, and compare."""
    error = scale = 0.0
    alike: list[float] = []
    chosen: list[float] = []
    apart: list[float] = []
    for read in reads:
        ours = answering.repeat(read.answers, read.patched)
        for answer, mine, theirs in zip(read.answers, ours, read.logits, strict=True):
            error = float(np.maximum(error, np.abs(mine - theirs).max()))
            scale = float(np.maximum(scale, np.abs(theirs).max()))
            apart += _divergences(theirs, mine)
            if answer.options:
                letters = list(answering.tokenizer.letter_ids(answer.options))
                chosen.append(mine[0, letters].argmax() == theirs[0, letters].argmax())
            else:
                alike += [float(a) for a in mine.argmax(-1) == theirs.argmax(-1)]
    return Agreement(
        error / scale, float(np.mean(alike)), float(np.mean(chosen)), float(np.mean(apart))
    )


def _divergences(theirs: Floats, ours: Floats) -> list[float]:
    """Give each step's Kullback-Leibler divergence of our distribution from theirs, nats."""
    expected, got = (_log_softmax(logits.astype(np.float64)) for logits in (theirs, ours))
    return (np.exp(expected) * (expected - got)).sum(-1).tolist()


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _blocks(names: Iterable[str]) -> dict[str, list[str]]:
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(_block(name), []).append(name)
    return blocks


def _block(name: str) -> str:
    """Name the transformer block, or part of a model, that a matrix belongs to."""
    return ".".join(name.split(".")[:3])


def _names(order: Iterable[str], blocks: Mapping[str, list[str]]) -> list[str]:
    return [name for block in order for name in blocks[block]]
