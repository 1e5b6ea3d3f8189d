"""A static KV cache for a batch of sequences, and the rows of it that sequences own.

One array [layers, 2, rows, kv_heads, slots, head_dim], float32 or float16 as the bundle's manifest
says, holds keys and values. Any run of consecutive rows of one layer is contiguous, so a part of
the batch can be handed to the runtime without a copy; the runtime writes new slots in place. Slots
behind a row's length hold any finite numbers: masked attention multiplies them by zero.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import CacheFacts, TextFacts

if TYPE_CHECKING:
    from idetex_edge.engines.decoder_step import DecoderStep

_GRAIN: Final = 32
"""Slots come in multiples of this."""


class KvCache:
    """Keys and values of `rows` sequences with room for at least `slots` tokens each."""

    def __init__(self, facts: TextFacts, form: CacheFacts, rows: int, slots: int) -> None:
        self._facts, self._form = facts, form
        self.data = self._empty(rows, slots)
        self.steps: dict[tuple[int, int, int, int], DecoderStep] = {}
        """Steps kept for reuse, by (first row, rows, tokens, asked): they hold views of `data`."""

    def _empty(self, rows: int, slots: int) -> npt.NDArray[np.floating[Any]]:
        facts, whole = self._facts, self._form.slots or -(-slots // _GRAIN) * _GRAIN
        shape = (facts.layers, 2, rows, facts.kv_heads, whole, facts.head_dim)
        # The system gives zeroed pages only where they are touched: unreached slots cost nothing.
        return np.zeros(shape, self._form.dtype)

    @property
    def rows(self) -> int:
        """How many sequences it has room for."""
        return self.data.shape[2]

    @property
    def slots(self) -> int:
        """How many tokens each of them may have before it grows."""
        return self.data.shape[4]

    def reserve(self, slots: int) -> None:
        """Make room for `slots` tokens in every row; at least doubles when it has to grow."""
        if slots <= self.slots:
            return
        old = self.data
        self.data = self._empty(self.rows, max(slots, 2 * self.slots))
        self.data[..., : old.shape[4], :] = old
        self.steps.clear()

    def copy_row(self, row: int, source: KvCache, source_row: int, length: int) -> None:
        """Copy the first `length` slots of another cache's row."""
        self.data[:, :, row, :, :length] = source.data[:, :, source_row, :, :length]


R = TypeVar("R", bound="Rows")


class Rows(Protocol):
    """A batch of sequences' keys and values, wherever they lie."""

    @property
    def rows(self) -> int:
        """How many sequences it has room for."""
        ...

    @property
    def slots(self) -> int:
        """How many tokens each of them may have."""
        ...

    def copy_row(self: R, row: int, source: R, source_row: int, length: int) -> None:
        """Copy the first `length` slots of another one's row."""
        ...


@dataclass(slots=True, eq=False)
class CachedSequence(Generic[R]):
    """A row of a cache, and how far it is filled."""

    cache: R
    row: int
    length: int = 0
    next_position: int = 0

    def forks(self, cache: R) -> list[CachedSequence[R]]:
        """Copy it into every row of an empty cache; a sequence for each."""
        for row in range(cache.rows):
            cache.copy_row(row, self.cache, self.row, self.length)
        return [
            CachedSequence(cache, row, self.length, self.next_position) for row in range(cache.rows)
        ]


def gather(sequences: List[CachedSequence[R]], make: Callable[[int, int], R]) -> tuple[R, int]:
    """Bring sequences into consecutive rows of one cache; returns it and the first row.

    Free when they lie so already, in any order. Otherwise their filled slots are copied to a new
    cache of (rows, slots) and the sequences are moved there; the old one lives on while others are
    in it.
    """
    cache = sequences[0].cache
    rows = sorted(s.row for s in sequences)
    together = all(s.cache is cache for s in sequences)
    if together and rows == list(range(rows[0], rows[0] + len(rows))):
        return cache, rows[0]
    cache = make(len(sequences), max(s.cache.slots for s in sequences))
    for row, sequence in enumerate(sequences):
        cache.copy_row(row, sequence.cache, sequence.row, sequence.length)
        sequence.cache, sequence.row = cache, row
    return cache, 0
