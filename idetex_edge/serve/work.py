"""Pictures waiting for a worker, and the workers: a thread and an Assessor each.

Batching pictures of several requests into one decode was measured and left out: on nano it saves a
tenth of the CPU time at best, and every request would wait for the longest answer of its batch.
`docs/scale.md` has the figures.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from idetex_edge.assessor import Assessor
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.metrics import Metrics
from idetex_edge.serve.problems import HttpError, problem_of

T = TypeVar("T")
Task = Callable[[Assessor], T]

_LOG: Final = logging.getLogger("uvicorn.error")


class GivenUpError(Exception):
    """Nobody waits for this work any more: its client left, or its deadline passed."""


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One task on one picture. deadline: as of `time.monotonic`."""

    task: Task[T]
    deadline: float
    result: Future[T] = field(default_factory=Future[T])
    given_up: bool = False

    def check(self) -> None:
        """Raise GivenUpError when the work is no longer wanted."""
        if self.given_up or time.monotonic() > self.deadline:
            raise GivenUpError


class WorkQueue:
    """First come, first served, by as many workers as there are Assessors."""

    def __init__(self, assessors: Sequence[GuardedAssessor], room: int, metrics: Metrics) -> None:
        """Make a queue with `room` for waiting jobs; `start` lets the workers in."""
        self._waiting: deque[Job[Any]] = deque()
        self._changed = threading.Condition()
        self._room, self._metrics, self._closing = room, metrics, False
        self._threads = [
            threading.Thread(target=self._work, args=(assessor,), daemon=True)
            for assessor in assessors
        ]
        metrics.waiting.set_function(lambda: len(self._waiting))

    def start(self) -> None:
        """Let the workers begin."""
        for thread in self._threads:
            thread.start()

    @property
    def closing(self) -> bool:
        """Whether new work is refused because the server is shutting down."""
        return self._closing

    def check_room(self, jobs: int = 1) -> None:
        """Raise HttpError when there is no room for so many more jobs.

        More jobs than the queue ever has room for are taken when nothing waits.
        """
        if self._closing:
            raise HttpError(503, "closing", "the server is shutting down; ask another one")
        waiting = len(self._waiting)
        if waiting and waiting + jobs > self._room:
            raise HttpError(503, "busy", f"{waiting} pictures are waiting already; try again later")

    def submit(self, tasks: Sequence[Task[T]], deadline: float) -> list[Job[T]]:
        """Queue all tasks or, raising HttpError, none of them."""
        jobs = [Job(task, deadline) for task in tasks]
        with self._changed:
            self.check_room(len(jobs))
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))
        return jobs

    def forget(self, jobs: Sequence[Job[Any]]) -> None:
        """Take jobs that nobody waits for from the queue, and stop those being worked on."""
        with self._changed:
            for job in jobs:
                job.given_up = True
            self._waiting = deque(job for job in self._waiting if not job.given_up)

    def close(self) -> None:
        """Take no more work, finish what there is, and end the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self) -> Job[Any] | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _work(self, assessor: GuardedAssessor) -> None:
        while job := self._next():
            if job.result.set_running_or_notify_cancel():
                with self._metrics.working.track_inprogress():
                    self._do(assessor, job)

    def _do(self, assessor: GuardedAssessor, job: Job[Any]) -> None:
        started = time.perf_counter()
        try:
            result = assessor.run(job.task, job.check)
        except Exception as error:  # a worker outlives whatever a picture does to it
            if isinstance(error, GivenUpError):
                self._metrics.given_up.inc()
            elif problem_of(error).status == 500:
                _LOG.error("a picture failed", exc_info=error)
            job.result.set_exception(error)
        else:
            self._metrics.service.observe(time.perf_counter() - started)
            job.result.set_result(result)
