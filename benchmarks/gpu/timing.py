"""A GPU's clock, and the floors that it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

_L2: Final = 256 * 2**20
"""Bytes that are read before a launch: more than any L2 cache holds."""
_TURNS: Final = 8
"""Launches of a graph."""
_SHORTEST: Final = 1e-7
"""Seconds that can still be told from nothing, as a difference of two graphs."""


@dataclass(frozen=True, slots=True)
class Floors:
    """What this GPU can do: bytes a second read and written by a copy, operations by a product.

    rates: operations a second of torch's product of large matrices, by the type multiplied.
    """

    bandwidth: float
    rates: Mapping[str, float]

    def microseconds(self, moved: int, operations: int, kind: str) -> float:
        """The least time for so many bytes and operations."""
        return max(moved / self.bandwidth, operations / self.rates[kind]) * 1e6


def measure_floors(repeats: int) -> Floors:
    """Measure a copy of half a gigabyte, and products of 8192 x 8192 matrices."""
    source = torch.randint(-128, 128, (2**29,), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds(lambda: target.copy_(source), repeats)
    a, b = (torch.randn(8192, 8192, device="cuda").half() for _ in range(2))
    c, d = a.bfloat16(), b.bfloat16()
    whole = [(torch.randn(8192, 8192, device="cuda") * 40).to(torch.int8) for _ in range(2)]
    # torch multiplies INT8 by columns.
    turned = whole[1].t().contiguous().t()
    # The one product of INT8 that torch has, under no public name.
    multiply: Any = getattr(torch, "_int_mm")  # noqa: B009
    operations = 2 * 8192**3
    return Floors(
        bandwidth,
        {
            "fp16": operations / seconds(lambda: a @ b, repeats),
            "bf16": operations / seconds(lambda: c @ d, repeats),
            "int8": operations / seconds(lambda: multiply(whole[0], turned), repeats),
        },
    )


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time that `work` adds to a CUDA graph which reads more than L2 holds each turn.

    So no launch waits for Python, the graph's own start and end are not counted, and L2 holds
    nothing that would have to be written back.
    """
    cold = torch.zeros(_L2 // 4, device="cuda")
    aside = torch.cuda.Stream()

    def captured(turn: Callable[[], object]) -> torch.cuda.CUDAGraph:
        with torch.cuda.stream(aside):
            for _ in range(3):
                turn()
        aside.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            for _ in range(_TURNS):
                turn()
        return graph

    def read() -> None:
        cold.amax()

    def read_and_work() -> None:
        cold.amax()
        work()

    with_work, without = captured(read_and_work), captured(read)
    added = [_replayed(with_work) - _replayed(without) for _ in range(repeats)]
    return max(statistics.median(added) / _TURNS, _SHORTEST)


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # The GPU is busy while the graph is launched: that is not counted, either.
    graph.replay()
    start.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000
