"""Wait for work on behalf of a client, and only as long as it is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from fastapi import Request

from idetex_edge.errors import IdetexError
from idetex_edge.serve.problems import HttpError, problem_of, too_late
from idetex_edge.serve.work import GivenUpError, Job, Task, WorkQueue

T = TypeVar("T")

Tell: TypeAlias = Callable[[str], None]
"""Called by a task with each piece of text that it has written."""


async def results(request: Request, tasks: Sequence[Task[T]], deadline: float) -> list[T]:
    """Have tasks done, in their order of results; raises HttpError.

    A client that leaves and a deadline that passes end the work on all of them, as does the first
    that fails.
    """
    work: WorkQueue = request.app.state.work
    jobs = work.submit(tasks, deadline)
    everything = asyncio.gather(
        *(_result(job, f"images[{index}]: " * (len(jobs) > 1)) for index, job in enumerate(jobs))
    )
    gone = asyncio.ensure_future(_gone(request))
    try:
        await _first_of(everything, gone, deadline)
        if everything.done():
            return await everything
        raise HttpError(499, "gone", "the client left") if gone.done() else _late(request)
    except GivenUpError:
        raise _late(request) from None
    except Exception as error:
        raise problem_of(error) from error
    finally:
        gone.cancel()
        everything.cancel()
        work.forget(jobs)


async def pieces(
    request: Request, tasks: Sequence[Callable[[Tell], Task[T]]], deadline: float
) -> AsyncGenerator[tuple[int, str | T], None]:
    """Have tasks done that write text; gives each one's index with its pieces, then its result.

    Ends as `results` does, but silently where the client left.
    """
    work: WorkQueue = request.app.state.work
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[tuple[int, str | Job[T]]] = asyncio.Queue()

    def teller(index: int) -> Tell:
        return lambda piece: _later(loop, heard.put_nowait, (index, piece))

    jobs = work.submit([task(teller(index)) for index, task in enumerate(tasks)], deadline)
    for index, job in enumerate(jobs):
        job.result.add_done_callback(
            lambda _, told=(index, job): _later(loop, heard.put_nowait, told)
        )
    gone = asyncio.ensure_future(_gone(request))
    unfinished = len(jobs)
    try:
        while unfinished:
            next_heard = asyncio.ensure_future(heard.get())
            await _first_of(next_heard, gone, deadline)
            if not next_heard.done():
                next_heard.cancel()
                if gone.done():
                    return
                raise _late(request)
            index, said = next_heard.result()
            if isinstance(said, Job):
                unfinished -= 1
                yield index, said.result.result()
            else:
                yield index, said
    except GivenUpError:
        raise _late(request) from None
    except Exception as error:
        raise problem_of(error) from error
    finally:
        gone.cancel()
        work.forget(jobs)


async def _first_of(
    awaited: asyncio.Future[Any], gone: asyncio.Future[None], deadline: float
) -> None:
    """Wait for what is awaited, the client's leaving or the deadline, whichever comes first."""
    left = max(0.0, deadline - time.monotonic())
    await asyncio.wait((awaited, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)


async def _result(job: Job[T], where: str) -> T:
    try:
        return await asyncio.wrap_future(job.result)
    except IdetexError as error:
        problem = problem_of(error)
        raise HttpError(problem.status, problem.kind, where + problem.message) from error


def _later(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], what: object) -> None:
    # The loop is closed when a server that did not drain has gone.
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, what)


async def _gone(request: Request) -> None:
    """Return when the client has left; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _late(request: Request) -> HttpError:
    return too_late(request.app.state.settings.deadline)
