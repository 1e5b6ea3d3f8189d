"""What was measured of a launch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.case import Case
from benchmarks.gpu.timing import Floors, seconds


@dataclass(frozen=True, slots=True)
class Row:
    """Of a launch: its error, its time, its floor and the floor's share of the time, and peers.

    error: see `error_of`. Times are microseconds, medians. peers: times of the same in torch.
    failed: what went wrong with others of them.
    """

    name: str
    error: float
    microseconds: float
    floor: float
    share: float
    peers: dict[str, float]
    failed: dict[str, str] = field(default_factory=dict[str, str])


def error_of(got: torch.Tensor, right: torch.Tensor) -> float:
    """Root mean square of the error over that of the reference; infinite where any is NaN."""
    difference = (got.double() - right.double()).square().mean().sqrt()
    ratio = float(difference / right.double().square().mean().sqrt())
    return ratio if ratio == ratio else float("inf")


def error(case: Case) -> float:
    """Run a case once, and tell how far it is from its reference."""
    ran = case.run()
    return error_of((ran if case.told is None else case.told()).cpu(), case.right())


def told(problem: Exception) -> str:
    """What went wrong, in one line."""
    return f"{type(problem).__name__}: {problem}".splitlines()[0]


def measured(name: str, case: Case, error: float, floors: Floors, repeats: int) -> Row:
    """Time a case and its peers, on the GPU that torch uses."""
    took = 1e6 * seconds(case.run, repeats)
    floor = floors.microseconds(case.moved, case.operations, case.kind)
    peers: dict[str, float] = {}
    failed: dict[str, str] = {}
    for how, peer in case.peers.items():
        # Compiled for these sizes alone, as our kernels were chosen for them.
        work: Callable[[], object] = (
            torch.compile(peer, dynamic=False) if how == "compiled" else peer
        )
        try:
            peers[how] = 1e6 * seconds(work, repeats)
        except Exception as problem:
            # Whatever torch lacks on this GPU, our own figures stand.
            failed[how] = told(problem)
    return Row(name, error, took, floor, floor / took, peers, failed)
