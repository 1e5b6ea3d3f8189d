"""ASGI: what is checked before and while a request comes in."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idetex_edge.serve.problems import HttpError
from idetex_edge.serve.settings import Settings
from idetex_edge.serve.work import WorkQueue

DEADLINE: Final = "deadline"
"""Under this name a request's scope holds when it must be answered, as of `time.monotonic`."""

_LOCAL: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_LINGER_SECONDS: Final = 2.0
_LINGER_BODIES: Final = 4


class Gate:
    """Refuses, before reading them, requests that there is no room for or that are too large.

    What comes in too slowly is refused too. A server without a key answers to local names alone, or
    a web page could reach it through a name of its own that leads to this machine.
    """

    def __init__(self, app: ASGIApp, settings: Settings, work: WorkQueue) -> None:
        self._app, self._settings, self._work = app, settings, work
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or answer it with what is wrong."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[DEADLINE] = time.monotonic() + self._settings.deadline
        body = _Body(receive, send, self._settings, scope[DEADLINE])
        client = scope["client"][0] if scope.get("client") else ""
        asks_for_work = scope["method"] == "POST"
        self._inside[client] += asks_for_work
        try:
            self._check(scope, client, asks_for_work)
        except HttpError as problem:
            await problem.response()(scope, body.receive, body.send)
        else:
            await self._app(scope, body.receive, body.send)
        finally:
            self._inside[client] -= asks_for_work
            self._inside += Counter()  # drops those at zero

    def _check(self, scope: Scope, client: str, asks_for_work: bool) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "localhost")
        name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
        if self._settings.api_key is None and name not in _LOCAL:
            raise HttpError(
                403, "host", f"this server answers to {', '.join(sorted(_LOCAL))}, not to {name!r}"
            )
        if not asks_for_work:
            return
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.max_body:
            raise _too_large(self._settings)
        if self._inside[client] > self._settings.per_client:
            raise HttpError(
                429,
                "too_many_requests",
                f"{self._settings.per_client} of your requests are being answered; wait for one",
            )
        self._work.check_room()


class _Body:
    """A request's body as it comes in, and the answer that may go out before all of it has."""

    def __init__(self, receive: Receive, send: Send, settings: Settings, deadline: float) -> None:
        self._receive, self._send, self._settings = receive, send, settings
        self._deadline = deadline
        self._read, self._complete = 0, False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        wait = self._deadline - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), wait)
        except asyncio.TimeoutError:
            raise HttpError(
                408, "slow", f"the request took over {self._settings.deadline:g} s to arrive"
            ) from None
        if message["type"] == "http.disconnect":
            raise HttpError(499, "gone", "the client left before its request was there")
        self._note(message)
        if self._read > self._settings.max_body:
            raise _too_large(self._settings)
        return message

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and not self._complete:
            # Closing now would take the answer from a client that is still sending.
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        ends = time.monotonic() + _LINGER_SECONDS
        most = self._settings.max_body * _LINGER_BODIES
        while not self._complete and self._read < most:
            try:
                wait = ends - time.monotonic()
                self._note(await asyncio.wait_for(self._receive(), wait))
            except asyncio.TimeoutError:
                return

    def _note(self, message: Message) -> None:
        self._read += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)


def _too_large(settings: Settings) -> HttpError:
    megabytes = settings.max_body / 2**20
    return HttpError(
        413, "too_large", f"the request is over {megabytes:g} MiB; send fewer or smaller pictures"
    )
