"""Work that is no longer wanted ends at the next step of the engine, wherever it is."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from skimage import data

from idetex_edge import Assessor
from idetex_edge.serve.guarded import GuardedAssessor


class Counting:
    """Lets so many steps pass."""

    def __init__(self, most: float) -> None:
        self.calls, self._most = 0, most

    def __call__(self) -> None:
        self.calls += 1
        if self.calls > self._most:
            raise TimeoutError


def test_every_step_can_be_the_last(served_bundle: Path) -> None:
    guarded = GuardedAssessor(served_bundle, threads=1)
    picture = data.coffee()
    expected = Assessor(served_bundle).assess(picture)
    counting = Counting(float("inf"))
    found = guarded.run(lambda assessor: assessor.assess(picture), counting)
    assert found.score == expected.score
    assert found.description == expected.description
    # One for the picture, some for the prompts, one for each token.
    assert counting.calls > 20
    for most in (0, 1, 2, 3, 10, counting.calls - 1):
        stopped = Counting(most)
        with pytest.raises(TimeoutError):
            guarded.run(lambda assessor: assessor.assess(picture), stopped)
        assert stopped.calls == most + 1
    assert guarded.assess(picture).description == expected.description


def test_a_pictures_memory_is_free_when_it_is_dropped(served_bundle: Path) -> None:
    """And not only when Python looks for cycles: until then a server would grow."""
    assessor = Assessor(served_bundle)
    gc.collect()
    gc.disable()
    try:
        seen = assessor.encode(data.coffee())
        assessor.assess(seen)
        (stem,) = seen.stems.values()
        # A slotted sequence takes no weak references; its cache does.
        cache = weakref.ref(stem.cache)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownVariableType]
        assert cache() is not None
        del seen, stem
        assert cache() is None
    finally:
        gc.enable()
