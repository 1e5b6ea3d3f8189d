"""Prefill a request's prompts as a trie: what they have in common is computed once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from idetex_edge.decoding import feed
from idetex_edge.engines.protocol import DraftingEngine, Engine, Floats
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.lanes import lanes_of, side_by_side
from idetex_edge.runs import common_run

_WORTH_SHARING: Final = 16
"""A fork copies keys and values: fewer common tokens than this are cheaper computed again."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows the picture in one prompt: token ids, and room for that many of an answer.

    Where `room` is 0 the answer is read from the prompt's last logits.
    """

    tokens: list[int]
    room: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A prompt: the logits [vocab] of its last token, and how many tokens it has, all counted.

    sequence: what an answer is to be written behind, if one is.
    """

    logits: Floats
    length: int
    sequence: Cached | None


def prefill(engine: Engine, stem: Cached, tails: Sequence[Tail]) -> list[Prefilled]:
    """Continue `stem` with each of the tails, in their order; `stem` stays as it is.

    A sequence is kept only where an answer is to be written: those decode as one batch, the
    others take up memory one at a time.
    """
    trie = _Trie(engine, stem, tails)
    trie.branch(stem, range(len(tails)), 0)
    return [trie.found[member] for member in range(len(tails))]


class _Trie:
    """The tails behind one stem, prefilled edge by edge."""

    # Not functions inside one another: those hold each other, and so all sequences, until Python
    # next looks for cycles, which it does by the number of objects and not by their size.

    def __init__(self, engine: Engine, stem: Cached, tails: Sequence[Tail]) -> None:
        self.found: dict[int, Prefilled] = {}
        self._engine, self._tails, self._stem_length = engine, tails, stem.length
        self._capacity = stem.length + max(len(tail.tokens) + tail.room for tail in tails)

    def branch(self, sequence: Cached, members: Sequence[int], depth: int) -> None:
        """Fork for each run that some of the members go on with."""
        engine, tails, capacity = self._engine, self._tails, self._capacity
        groups: dict[tuple[int, ...], list[int]] = {}
        for member in members:
            key = tuple(tails[member].tokens[depth : depth + _WORTH_SHARING])
            groups.setdefault(key, []).append(member)
        written = [group for group in groups.values() if any(tails[m].room for m in group)]
        forks = engine.fork(sequence, len(written), capacity) if written else []
        for group, fork in zip(written, forks, strict=True):
            self._grow(fork, group, depth)
        self._read(sequence, [g for g in groups.values() if g not in written], depth)

    def _read(self, sequence: Cached, groups: Sequence[list[int]], depth: int) -> None:
        """Put groups of which nothing is written behind a sequence, which stays as it is."""

        def read(share: tuple[Cached, Sequence[list[int]]]) -> None:
            for group in share[1]:
                with self._lent(share[0]) as lent:
                    self._grow(lent, group, depth)

        # A lane's copy of the sequence is worth it from its second group on.
        lanes = max(lanes_of(self._engine, len(groups) // 2), 1)
        copies = self._engine.fork(sequence, lanes - 1, self._capacity) if lanes > 1 else []
        shares = [(one, groups[i::lanes]) for i, one in enumerate([sequence, *copies])]
        side_by_side(self._engine, read, shares)

    @contextmanager
    def _lent(self, sequence: Cached) -> Generator[Cached]:
        """What is like a sequence, which is back to its length afterwards.

        The sequence itself, where an engine can take back what is put behind it: a fork's copy and
        its fresh memory cost a sixth of what a question of 40 tokens does.
        """
        engine, length = self._engine, sequence.length
        if not isinstance(engine, DraftingEngine):
            yield engine.fork(sequence, 1, self._capacity)[0]
            return
        try:
            yield sequence
        finally:
            engine.forget(sequence, sequence.length - length)

    def _grow(self, sequence: Cached, members: Sequence[int], depth: int) -> None:
        """Feed what the members have in common, and branch where they part."""
        engine, tails, capacity = self._engine, self._tails, self._capacity
        run = common_run([tails[member].tokens[depth:] for member in members])
        logits = feed(engine, sequence, run)
        end = depth + len(run)
        ended = [m for m in members if len(tails[m].tokens) == end]
        longer = [m for m in members if len(tails[m].tokens) > end]
        if longer:
            self.branch(sequence, longer, end)
        length = self._stem_length + end
        self.found.update((member, Prefilled(logits, length, None)) for member in ended)
        if written := [m for m in ended if tails[m].room]:
            alone = len(members) == 1
            copies = [sequence] if alone else engine.fork(sequence, len(written), capacity)
            for member, copy in zip(written, copies, strict=True):
                self.found[member] = Prefilled(logits, length, copy)
