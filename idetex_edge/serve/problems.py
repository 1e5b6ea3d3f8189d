"""What can go wrong with a request, as a status and a line of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import JSONResponse

from idetex_edge.errors import IdetexError, ImageError, RequestError

BUSY_SECONDS: Final = 1
"""When a client that was refused for load may try again."""


class HttpError(Exception):
    """A request that is answered with an error.

    status: of HTTP. kind: what sort of error, one word for programs. The message is for people.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form; OpenAI's clients read it as one of their own."""
        return {"error": {"type": self.kind, "message": self.message}}

    def response(self) -> JSONResponse:
        """Give the answer to send."""
        return JSONResponse(self.to_dict(), self.status, _HEADERS.get(self.status))


_HEADERS: Final[Mapping[int, dict[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(BUSY_SECONDS)},
    503: {"Retry-After": str(BUSY_SECONDS)},
}

_OF_ERRORS: Final[Mapping[type[IdetexError], tuple[int, str]]] = {
    ImageError: (422, "picture"),
    RequestError: (422, "request"),
}


def problem_of(error: BaseException) -> HttpError:
    """Give what a client is told of an error; what is our own fault is told without details."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, IdetexError):
        status, kind = _OF_ERRORS.get(type(error), (500, "engine"))
        return HttpError(status, kind, str(error))
    return HttpError(500, "internal", "the server failed on this request; its log tells more")


def too_late(seconds: float) -> HttpError:
    """An answer that was not ready by the deadline."""
    return HttpError(
        504, "deadline", f"no answer within {seconds:g} s; send fewer or smaller pictures, or later"
    )
