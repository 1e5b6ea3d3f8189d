from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idetex_edge.decoding import feed
from idetex_edge.engines import Engine, Sequence
from idetex_edge.engines.protocol import DraftingEngine, Floats, Ids
from idetex_edge.errors import EngineError
from idetex_edge.sharing import Prefilled, Tail, prefill

STEM = list(range(30, 60))
LONG = [5 + i % 40 for i in range(70)]
CASES: dict[str, list[list[int]]] = {
    "one": [LONG],
    "all different": [[1, 2, 3], [2, 3], [3] * 30],
    "long stems": [[*LONG, 1, 2], [*LONG, 2], [*LONG[:40], 9], [*LONG[:40], 8, 8]],
    "identical": [LONG, LONG, [7], [7], LONG],
    "one a prefix of another": [LONG[:20], LONG, LONG[:20], [*LONG, 1], LONG[:21], LONG[:3]],
    "all of a chain": [LONG[:count] for count in (17, 34, 51, 68, 70)],
}


def alone(engine: Engine, tail: list[int]) -> tuple[Sequence, Floats]:
    sequence = engine.start(8)
    return sequence, feed(engine, sequence, [*STEM, *tail])


def assert_close(got: Floats, expected: Floats) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


def check(engine: Engine, tails: list[Tail]) -> list[Prefilled]:
    stem = engine.start(8)
    feed(engine, stem, STEM)
    found = prefill(engine, stem, tails)
    assert stem.length == len(STEM)
    for tail, one in zip(tails, found, strict=True):
        sequence, logits = alone(engine, tail.tokens)
        assert_close(one.logits, logits)
        assert (one.sequence is None) == (tail.room == 0)
        if one.sequence is not None:
            assert one.sequence.length == sequence.length
            assert one.sequence.next_position == sequence.next_position
    return found


@pytest.mark.parametrize("tails", CASES.values(), ids=CASES)
@pytest.mark.parametrize("rooms", [(4,), (0,), (0, 4), (4, 0, 0)], ids=str)
def test_sharing_changes_nothing(
    tiny_engine: Engine, tails: list[list[int]], rooms: tuple[int, ...]
) -> None:
    asked = [Tail(tail, rooms[i % len(rooms)]) for i, tail in enumerate(tails)]
    found = check(tiny_engine, asked)
    # What is written behind one prompt stays out of the others.
    written = [(tail, one.sequence) for tail, one in zip(asked, found, strict=True)]
    going_on = [(tail, sequence) for tail, sequence in written if sequence is not None]
    expected = [alone(tiny_engine, tail.tokens)[0] for tail, _ in going_on]
    for step in range(2):
        tokens = [10 + step + i for i in range(len(going_on))]
        if tokens:
            logits = tiny_engine.decode([sequence for _, sequence in going_on], tokens)
            for got, sequence, token in zip(logits, expected, tokens, strict=True):
                assert_close(got, tiny_engine.decode([sequence], [token])[0])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            Tail,
            st.lists(st.integers(1, 2), min_size=1, max_size=40),
            st.sampled_from([0, 4]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_prompts(tiny_engine: Engine, tails: list[Tail]) -> None:
    check(tiny_engine, tails)


class Counting:
    """Counts what an engine is asked to compute and to copy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.tokens = self.forks = self.capacity = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        self.tokens += len(embeddings)
        return self._engine.extend(sequence, embeddings, positions)

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        self.forks += count
        self.capacity = max(self.capacity, capacity)
        return self._engine.fork(sequence, count, capacity)

    # Not by __getattr__: from Python 3.12 on, protocols look for what a class has itself.
    @property
    def drafts(self) -> bool:
        return False

    def follow(self, sequence: Sequence, token_ids: Ids) -> Floats:
        raise NotImplementedError

    def forget(self, sequence: Sequence, count: int) -> None:
        assert isinstance(self._engine, DraftingEngine)
        self._engine.forget(sequence, count)


@pytest.mark.parametrize(
    ("case", "tokens", "forks"),
    [
        ("one", 70, 1),
        ("all different", 3 + 2 + 30, 3),
        # The 40 that all share, then the 30 that two share, and their ends.
        ("long stems", 40 + 30 + 1 + 2 + 1 + 2, 1 + 3 + 2),
        ("identical", 70 + 1, 2 + 5),
        ("all of a chain", 70, 5 + 4),
    ],
)
def test_what_is_shared_is_computed_once(
    tiny_engine: Engine, case: str, tokens: int, forks: int
) -> None:
    engine = Counting(tiny_engine)
    stem = tiny_engine.start(8)
    feed(tiny_engine, stem, STEM)
    prefill(engine, stem, [Tail(tail, 4) for tail in CASES[case]])  # pyright: ignore[reportArgumentType]
    assert (engine.tokens, engine.forks) == (tokens, forks)
    # Answers of 4 tokens fit without the cache having to grow.
    assert engine.capacity == len(STEM) + max(len(tail) for tail in CASES[case]) + 4


@pytest.mark.parametrize("case", CASES)
def test_what_is_only_read_is_not_copied(tiny_engine: Engine, case: str) -> None:
    engine = Counting(tiny_engine)
    stem = tiny_engine.start(8)
    feed(tiny_engine, stem, STEM)
    prefill(engine, stem, [Tail(tail, 0) for tail in CASES[case]])  # pyright: ignore[reportArgumentType]
    assert engine.forks == 0


def test_a_failure_leaves_the_stem_as_it_was(tiny_engine: Engine) -> None:
    """In the middle of a question: its beginning was read, its end was not."""

    class Failing(Counting):
        def extend(
            self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
        ) -> Floats:
            if self.tokens > 40:
                raise EngineError("no more")
            return super().extend(sequence, embeddings, positions)

    stem = tiny_engine.start(8)
    feed(tiny_engine, stem, STEM)
    tails = [Tail(tail, 0) for tail in CASES["long stems"]]
    with pytest.raises(EngineError, match="no more"):
        prefill(Failing(tiny_engine), stem, tails)  # pyright: ignore[reportArgumentType]
    assert stem.length == stem.next_position == len(STEM)
    check(tiny_engine, tails)
    assert_close(feed(tiny_engine, stem, [5]), alone(tiny_engine, [5])[1])
