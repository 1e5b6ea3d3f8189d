"""Leaving more inputs in float where a benchmark shows what a few pictures do not.

Answers to a benchmark take minutes, so blocks are ranked on the few pictures, and the benchmark is
asked only how many of them it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from export.calibration.fallback import Agreement, Block, fewest, ranked
from export.calibration.plan import Plan
from export.graphs.write import Advance


def hold(
    plan: Plan,
    shortfalls: Callable[[Plan], Sequence[str]],
    measure: Callable[[Plan], Agreement],
    advance: Advance,
) -> Plan:
    """Keep the fewest more blocks in the fallback form with which no score falls too far.

    shortfalls: says which do. Where only all of them together may suffice, all are kept, and the
    proof of the bundle will tell.
    """
    fallen = shortfalls(plan)
    if not fallen:
        return plan
    order = ranked(plan, measure(plan), measure, advance)

    def suffices(count: int) -> bool:
        nonlocal fallen
        found = shortfalls(_keeping(plan, order, count, fallen))
        fallen = found or fallen
        return not found

    enough = fewest(len(order), suffices, advance)
    return _keeping(plan, order, enough, fallen)


def _keeping(plan: Plan, order: Sequence[Block], count: int, fallen: Sequence[str]) -> Plan:
    """Keep the first `count` blocks. fallen: what falls with fewer."""
    reasons = {
        name: f"{block.effect(number, len(order))}; with fewer blocks kept {'; '.join(fallen)}"
        for number, block in enumerate(order[:count], 1)
        for name in block.names
    }
    return plan.keeping(reasons)
