"""How fast this machine reads memory and multiplies: what rooflines are drawn from."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

SIDE: Final = 2048
"""Rows and columns of the matrices in `GRAPHS`."""

GRAPHS: Final = {
    name: Path(__file__).parent / "graphs" / f"{name}.onnx" for name in ("int8", "float32")
}
"""Made by `benchmarks/rate_graphs.py`."""

_INPUTS: Final = {"int8": np.uint8, "float32": np.float32}
_ROWS: Final = 512
_BYTES: Final = 2**28
"""Read by each thread; the largest caches hold less."""

_TRIALS: Final = 5


@dataclass(frozen=True, slots=True)
class Rates:
    """The best of several trials: bytes read in a second, operations (two each multiply-add)."""

    read: float
    int8: float
    float32: float


def measure_rates(threads: int) -> Rates:
    """Measure for about three seconds; takes half a gigabyte for each two threads."""
    return Rates(
        _read_rate(threads), *(_multiply_rate(name, threads) for name in ("int8", "float32"))
    )


def _read_rate(threads: int) -> float:
    chunks = [np.ones(_BYTES // 8, np.uint64) for _ in range(threads)]

    # The cheapest sum there is: the processor waits for memory and for nothing else.
    def read(chunk: npt.NDArray[np.uint64]) -> None:
        np.bitwise_or.reduce(chunk)

    with ThreadPoolExecutor(threads) as pool:
        return threads * _BYTES / _best(lambda: list(pool.map(read, chunks)))


def _multiply_rate(name: str, threads: int) -> float:
    # Imported here: ONNX Runtime takes longer to import than all of idetex_edge.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(GRAPHS[name], options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((_ROWS, SIDE), _INPUTS[name])}

    def multiply() -> None:
        session.run(None, feeds)

    return 2 * _ROWS * SIDE**2 / _best(multiply)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest trial, after one to warm up."""
    work()
    seconds: list[float] = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
