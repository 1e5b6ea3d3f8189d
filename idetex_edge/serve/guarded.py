"""An Assessor whose work can be stopped between two steps of its engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from idetex_edge.assessor import Assessor
from idetex_edge.engines import AUTO
from idetex_edge.engines.protocol import Engine
from idetex_edge.hub import bundle_folder

T = TypeVar("T")


def _go_on() -> None:
    pass


class GuardedEngine:
    """Another engine, each of whose methods first calls `check`, which may raise."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.check: Callable[[], None] = _go_on

    def __getattr__(self, name: str) -> object:
        member = getattr(self._engine, name)
        if not callable(member):
            return member

        def step(*arguments: object, **named: object) -> object:
            self.check()
            return member(*arguments, **named)

        return step


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
        self._guard = GuardedEngine(self._engine)
        self._engine = cast("Engine", self._guard)

    def run(self, task: Callable[[Assessor], T], check: Callable[[], None]) -> T:
        """Do a task; `check` is called before every step, and what it raises ends the task."""
        self._guard.check = check
        try:
            check()
            return task(self)
        finally:
            self._guard.check = _go_on
