"""Who may ask: the API key."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from idetex_edge.serve.problems import HttpError
from idetex_edge.serve.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="The server's API key, where it has one.")


def require_key(
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Raise HttpError 401 unless the request carries the server's key or the server has none."""
    settings: Settings = request.app.state.settings
    if settings.api_key is None:
        return
    # Takes the same time wherever the keys first differ.
    theirs = given.credentials.encode() if given else b""
    if not hmac.compare_digest(theirs, settings.api_key.encode()):
        raise HttpError(401, "key", "wrong or no API key; send Authorization: Bearer KEY")
