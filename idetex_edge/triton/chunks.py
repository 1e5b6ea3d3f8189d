"""Who reads which slots in a decoding step: the tables of `kernels/decode_attention.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from idetex_edge.triton.slots import Chain

SIZES: Final = (64, 128, 256)
"""Slots of a chunk, which one program reads: as few as leave enough programs for the whole GPU."""
PARTS: Final = 1024
"""The most parts of a step. The caller sees to it that the longest chunks give no more."""
PROGRAMS: Final = 4
"""How many programs a multiprocessor runs side by side, by their registers."""

Table = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """A batch's chunks, and its parts, which are pairs of a chunk and a row that reads it.

    single, shared: int32 [W, 4], chunks that one row reads, and chunks that several do: first slot,
    slots, first part, parts. rows: int32 [p], each part's row. offsets: int32 [b + 1] and parts:
    int32 [p], the parts of each row.
    """

    single: Table
    shared: Table
    rows: Table
    offsets: Table
    parts: Table


def chunks_of(chains: Sequence[Chain], members: int, programs: int) -> Chunks:
    """Cut the runs of a batch's chains; a shared chunk has at most `members` rows.

    Rows share what they see of a segment chunk by chunk, as forks of one sequence do. programs: of
    how many chunks at most; more are had only where the longest give more.
    """
    readers = _pieces(chains, _size(chains, members, programs))
    single: list[tuple[int, int, int, int]] = []
    shared: list[tuple[int, int, int, int]] = []
    rows: list[int] = []
    for (start, count), all_readers in readers.items():
        for begin in range(0, len(all_readers), members):
            some = all_readers[begin : begin + members]
            (shared if len(some) > 1 else single).append((start, count, len(rows), len(some)))
            rows += some
    counted = np.bincount(rows, minlength=len(chains))
    return Chunks(
        _table(single),
        _table(shared),
        np.array(rows, np.int32),
        np.concatenate(([0], np.cumsum(counted))).astype(np.int32),
        np.argsort(rows, kind="stable").astype(np.int32),
    )


def _size(chains: Sequence[Chain], members: int, programs: int) -> int:
    """The shortest chunks that are not too many, counted by runs that are seen alike."""
    readers = Counter((run.segment.start, run.count) for chain in chains for run in chain.runs)
    for size in SIZES[:-1]:
        chunks = parts = 0
        for (_, count), rows in readers.items():
            pieces = -(-count // size)
            parts += pieces * rows
            chunks += pieces * -(-rows // members)
        if parts <= PARTS and chunks <= programs:
            return size
    return SIZES[-1]


def _pieces(chains: Sequence[Chain], size: int) -> dict[tuple[int, int], list[int]]:
    """The rows that read each piece of at most `size` slots: its first slot, its slots."""
    readers: dict[tuple[int, int], list[int]] = {}
    for row, chain in enumerate(chains):
        for run in chain.runs:
            for begin in range(0, run.count, size):
                piece = (run.segment.start + begin, min(size, run.count - begin))
                readers.setdefault(piece, []).append(row)
    return readers


def _table(chunks: Sequence[tuple[int, int, int, int]]) -> Table:
    return np.array(chunks, np.int32).reshape(-1, 4)
