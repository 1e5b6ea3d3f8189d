"""Leaving inputs in float that cost too much accuracy: of as few matrices as the budget allows.

What a matrix's own rounding error does to the answers cannot be told from that error: a rare
outlier at the right place spoils them, and a large error elsewhere does not. So effects are
measured, where answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class Block:
    """A transformer block, or part of a model: the matrices that it has in 8 bits.

    gain: how much nearer it brings the answers to have them in float, nats.
    """

    name: str
    names: Sequence[str]
    gain: float

    def effect(self, number: int, count: int) -> str:
        """Say what it does, and where that places it among all."""
        return (
            f"{self.name} is number {number} of {count} by effect, "
            f"{self.gain:.1e} nats nearer with it kept"
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
    loose = plan.loose

    def with_kept(names: Iterable[str]) -> Agreement:
        return measure(plan.keeping(dict.fromkeys(names, "tried")))

    if not (best := with_kept(loose)).within(limits):
        return plan.keeping(dict.fromkeys(loose, f"with all of them kept: {best}"))
    order = ranked(plan, whole, measure, advance)
    enough = fewest(
        len(order), lambda count: with_kept(_names(order[:count])).within(limits), advance
    )
    # The smallest errors first: they are the likeliest to be borne.
    suspects = sorted(_names(order[:enough]), key=lambda name: plan.layers[name].error)
    kept, needed = set(suspects), dict[str, str]()
    effects = {
        name: block.effect(number, len(order))
        for number, block in enumerate(order, 1)
        for name in block.names
    }
    for done, name in enumerate(suspects):
        advance("looking for what need not stay in float", done, len(suspects))
        without = with_kept(kept - {name})
        if without.within(limits):
            kept.remove(name)
        else:
            needed[name] = f"{effects[name]}; without this matrix: {without}"
    return plan.keeping(needed)


def ranked(
    plan: Plan, whole: Agreement, measure: Callable[[Plan], Agreement], advance: Advance
) -> list[Block]:
    """Rank the blocks of what a plan has in 8 bits, those with the largest effect first.

    whole: how far the plan itself agrees.
    """
    blocks: dict[str, list[str]] = {}
    for name in plan.loose:
        blocks.setdefault(".".join(name.split(".")[:3]), []).append(name)
    found: list[Block] = []
    for block, names in blocks.items():
        advance("looking for what must stay in float", len(found), len(blocks))
        alone = measure(plan.keeping(dict.fromkeys(names, "tried")))
        found.append(Block(block, names, whole.divergence - alone.divergence))
    return sorted(found, key=lambda block: -block.gain)


def fewest(count: int, suffices: Callable[[int], bool], advance: Advance) -> int:
    """Find by halving the fewest of `count` that suffice; none does not, and all are taken to."""
    failing, enough, total = 0, count, (count - 1).bit_length()
    while enough - failing > 1:
        advance(
            "looking for the fewest that suffice",
            total - (enough - failing - 1).bit_length(),
            total,
        )
        middle = (failing + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            failing = middle
    return enough


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


def _names(order: Iterable[Block]) -> list[str]:
    return [name for block in order for name in block.names]
