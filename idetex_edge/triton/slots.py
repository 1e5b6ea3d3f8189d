"""The KV cache's book: which slots are taken, and which of them a sequence reads.

A sequence is a chain of runs of slots. Forking shares the runs and copies nothing; a fork writes
into a segment of its own. A segment's slots are free again when no sequence holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from idetex_edge.errors import EngineError

GRAIN: Final = 16
"""Segments come in multiples of this many slots."""


class Slots:
    """All slots of the cache, handed out as segments from the lowest that fit."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = [(0, count)]

    def take(self, room: int) -> Segment:
        """A segment with room for at least `room` tokens; raises EngineError when none is left."""
        room = -(-room // GRAIN) * GRAIN
        for i, (start, length) in enumerate(self._free):
            if length >= room:
                self._free[i : i + 1] = [(start + room, length - room)] if length > room else []
                return Segment(self, start, room)
        raise EngineError(
            f"the KV cache's {self.count} slots have no {room} in a row left; let go of encoded "
            "pictures, or ask less at once"
        )

    def give(self, start: int, room: int) -> None:
        """Take a segment's slots back; neighbours become one again."""
        whole: list[tuple[int, int]] = []
        for first, length in sorted([*self._free, (start, room)]):
            if whole and sum(whole[-1]) == first:
                whole[-1] = (whole[-1][0], whole[-1][1] + length)
            else:
                whole.append((first, length))
        self._free = whole

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return sum(length for _, length in self._free)


class Segment:
    """Slots start..start + room, held until this is dropped."""

    def __init__(self, slots: Slots, start: int, room: int) -> None:
        self.start, self.room = start, room
        weakref.finalize(self, slots.give, start, room)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The first `count` tokens of a segment, as one sequence sees them."""

    segment: Segment
    count: int


@dataclass(slots=True, eq=False)
class Chain:
    """A sequence in the cache: the runs it was forked from, then those that it writes itself.

    own: the segment that it appends to, the last run's or, where nothing is in it yet, none's.
    """

    slots: Slots
    runs: list[Run] = field(default_factory=list[Run])
    own: Segment | None = None
    length: int = 0
    next_position: int = 0

    def fork(self, capacity: int) -> Chain:
        """A chain that continues from this one, with a segment for what is left of `capacity`."""
        room = capacity - self.length
        own = self.slots.take(room) if room > 0 else None
        return Chain(self.slots, list(self.runs), own, self.length, self.next_position)

    def reserve(self) -> None:
        """Make sure of a slot for one more token; raises EngineError when none is left."""
        if self.own is None or self._filled() == self.own.room:
            self.own = self.slots.take(max(1, self.length))

    def append(self, count: int) -> list[int]:
        """Make the chain longer by `count` tokens; returns the slot of each."""
        taken: list[int] = []
        for segment, before, more in self._room_for(count):
            self.runs = [run for run in self.runs if run.segment is not segment]
            self.runs.append(Run(segment, before + more))
            taken += range(segment.start + before, segment.start + before + more)
        self.length += count
        return taken

    def _room_for(self, count: int) -> Iterator[tuple[Segment, int, int]]:
        """Segments to fill: each with how much is in it, and how much goes in."""
        if self.own is not None:
            filled = self._filled()
            more = min(count, self.own.room - filled)
            if more:
                yield self.own, filled, more
            count -= more
        if count:
            # As much again as there is, so that a growing chain has few runs.
            self.own = self.slots.take(max(count, self.length))
            yield self.own, 0, count

    def _filled(self) -> int:
        return sum(run.count for run in self.runs if run.segment is self.own)
