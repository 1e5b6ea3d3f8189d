"""Work on different sequences side by side: a thread each, on a `ParallelEngine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from idetex_edge.engines.protocol import Engine, ParallelEngine

T = TypeVar("T")


def lanes_of(engine: Engine, most: int) -> int:
    """How many threads an engine is worth, `most` at most; 1 where it takes one at a time."""
    return min(engine.lanes, most) if isinstance(engine, ParallelEngine) else 1


def side_by_side(engine: Engine, work: Callable[[T], None], shares: Sequence[T]) -> None:
    """Do each share of the work in a thread of its own; one alone in the caller's.

    All end before what one of them raised is raised here.
    """
    if len(shares) < 2 or not isinstance(engine, ParallelEngine):
        for share in shares:
            work(share)
        return

    def alone(share: T) -> None:
        with engine.lane():
            work(share)

    with ThreadPoolExecutor(len(shares)) as pool:
        for _ in pool.map(alone, shares):
            pass
