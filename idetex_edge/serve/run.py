"""Open the Assessors, listen, and serve until told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import numpy as np
import uvicorn

from idetex_edge.errors import RequestError
from idetex_edge.serve.app import make_app
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings, threads_each


def open_assessors(
    bundle: str | None, engine: str, threads: int | None, max_pixels: int, workers: int
) -> list[GuardedAssessor]:
    """One Assessor for each worker, warm: each has seen a picture. Raises as `Assessor` does."""
    assessors = [
        GuardedAssessor(
            bundle, engine=engine, threads=threads_each(threads, workers), max_pixels=max_pixels
        )
        for _ in range(workers)
    ]
    grey = np.full((224, 224, 3), 128, np.uint8)
    for assessor in assessors:
        assessor.assess(grey)
    return assessors


def serve(
    assessors: list[GuardedAssessor], settings: Settings, listening: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests that are there and return.

    listening: told the address as soon as requests are taken. Raises RequestError when the address
    cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family)
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"cannot listen on {settings.host} port {settings.port}: {error}; choose another"
        ) from None
    config = uvicorn.Config(
        make_app(assessors, settings),
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.deadline) + 1,
    )
    # It logs what clients send; they are told it in their answers.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    with listener:
        listening(f"http://{host}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
