"""An Assessor whose work can be stopped between two steps of its engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from idetex_edge.assessor import Assessor
from idetex_edge.engines import AUTO
from idetex_edge.hub import bundle_folder

T = TypeVar("T")
Step = Callable[..., object]

_STEPS: Final = ("encode", "extend", "fork", "decode")
"""What an engine spends its time in."""


def _go_on() -> None:
    pass


class GuardedAssessor(Assessor):
    """Does one task at a time, as long as it may."""

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        engine: str = AUTO,
        threads: int | None = None,
        **limits: Any,  # noqa: ANN401 - handed on as they are
    ) -> None:
        """See `Assessor`."""
        folder = None if bundle is None else bundle_folder(bundle)
        super().__init__(folder, engine=engine, threads=threads, **limits)
        self._check: Callable[[], None] = _go_on
        # On the engine itself, which is this Assessor's own: whoever calls it is guarded.
        for name in _STEPS:
            setattr(self._engine, name, self._guarded(getattr(self._engine, name)))

    def run(self, task: Callable[[Assessor], T], check: Callable[[], None]) -> T:
        """Do a task; `check` is called before every step, and what it raises ends the task."""
        self._check = check
        try:
            check()
            return task(self)
        finally:
            self._check = _go_on

    def _guarded(self, step: Step) -> Step:
        def checked(*arguments: object, **named: object) -> object:
            self._check()
            return step(*arguments, **named)

        return checked
