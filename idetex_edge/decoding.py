"""One loop for everything that is generated: batched, constrained, drafted, forced tokens skipped.

Decoding is greedy, so the same picture gives the same answer. Answers that need one token each
are decoded as a batch; a run of tokens that the grammar forces, or that a draft expects, is fed in
one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from idetex_edge.drafting import Drafter
from idetex_edge.engines.protocol import DraftingEngine, Engine, Floats
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.errors import EngineError
from idetex_edge.grammar import Constraint
from idetex_edge.lanes import lanes_of, side_by_side
from idetex_edge.runs import common_run


@dataclass(slots=True)
class Reply:
    """An answer being written.

    `sequence` ends where the answer begins and `logits` [vocab] are its last; `tokens` grows up to
    the `limit` (and over it by what is forced behind the last), without the token in `stop` that
    ends it. Under a constraint `probabilities` grows too: what the model gave each token among
    those allowed, 1.0 where forced. `waiting` are tokens that were chosen but not yet fed.
    """

    sequence: Cached
    logits: Floats
    stop: frozenset[int]
    limit: int
    constraint: Constraint | None = None
    tokens: list[int] = field(default_factory=list[int])
    probabilities: list[float] = field(default_factory=list[float])
    waiting: list[int] = field(default_factory=list[int])
    done: bool = False

    def choose(self) -> list[int]:
        """Take the likeliest token, and those forced behind it; returns what is still to be fed."""
        run = self._likeliest() if self.constraint is None else self._allowed(self.constraint)
        self.tokens += run
        self.done = self.done or not run or len(self.tokens) >= self.limit
        return [] if self.done else run

    def _likeliest(self) -> list[int]:
        token = _greedy(self.logits)
        return [] if token in self.stop else [token]

    def _allowed(self, constraint: Constraint) -> list[int]:
        allowed = constraint.allowed(len(self.logits))
        logits = self.logits[allowed]
        best = _greedy(logits)
        token = int(allowed[best])
        if token in self.stop:
            return []
        constraint.take(token)
        run = [token, *(t for t in constraint.forced() if t not in self.stop)]
        self.probabilities.append(float(1 / np.exp(logits - logits[best]).sum()))
        self.probabilities += [1.0] * (len(run) - 1)
        self.done = constraint.finished
        return run


def _greedy(logits: Floats) -> int:
    best = int(logits.argmax())
    # NaN is the largest to argmax.
    if not np.isfinite(logits[best]):
        raise EngineError("the model's logits overflowed; try another engine, or check the bundle")
    return best


def feed(engine: Engine, sequence: Cached, tokens: Sequence[int]) -> Floats:
    """Append text tokens to a sequence; logits [vocab] of the last."""
    start = sequence.next_position
    positions = np.broadcast_to(np.arange(start, start + len(tokens)), (3, len(tokens)))
    return engine.extend(sequence, engine.embed(tokens), np.ascontiguousarray(positions))


def generate(
    engine: Engine, replies: Sequence[Reply], drafter: Drafter | None = None
) -> Iterator[None]:
    """Write all replies to their ends; pauses after every step, when each may have grown.

    drafter: what answers are expected to say, for a `DraftingEngine` that drafts.
    """
    drafting = engine if drafter and isinstance(engine, DraftingEngine) else None
    while active := [reply for reply in replies if not reply.done]:
        single: list[tuple[Reply, int]] = []
        for reply in active:
            run = reply.waiting or reply.choose()
            draft: list[int] = []
            if run and drafting and drafter:
                draft = drafter.draft(reply.tokens, reply.limit - len(reply.tokens))
            if drafting and draft:
                _follow(drafting, reply, run, draft)
            elif len(run) > 1:
                reply.logits, reply.waiting = feed(engine, reply.sequence, run), []
            elif run:
                single.append((reply, run[0]))
        if single:
            logits = engine.decode([r.sequence for r, _ in single], [token for _, token in single])
            for (reply, _), row in zip(single, logits, strict=True):
                reply.logits, reply.waiting = row, []
        yield


def _follow(engine: DraftingEngine, reply: Reply, run: list[int], draft: list[int]) -> None:
    """Feed what was chosen and what is expected behind it; keep that as far as it is chosen too."""
    rows = engine.follow(reply.sequence, [*run, *draft])[len(run) - 1 :]
    reply.logits, reply.waiting = rows[0], []
    kept = 0
    while kept < len(draft) and not reply.done and not reply.waiting:
        chosen = reply.choose()
        agreed = len(common_run([chosen, draft[kept:]]))
        kept += agreed
        reply.logits, reply.waiting = rows[kept], chosen[agreed:]
    engine.forget(reply.sequence, len(draft) - kept)


def finish(engine: Engine, replies: Sequence[Reply], drafter: Drafter | None = None) -> None:
    """Write all replies to their ends, side by side in threads on a `ParallelEngine`."""

    def write(share: Sequence[Reply]) -> None:
        for _ in generate(engine, share, drafter):
            pass

    lanes = lanes_of(engine, len(replies))
    side_by_side(engine, write, [replies[lane::lanes] for lane in range(lanes)])
