"""What a server allows and where it listens."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Final

from idetex_edge.errors import RequestError

API_KEY: Final = "IDETEX_API_KEY"
"""The environment variable that holds the API key."""

MAX_PIXELS: Final = 50_000_000
"""Largest picture taken over HTTP unless told otherwise: 150 MB decoded."""

WORKERS: Final = 2
"""Pictures seen at once unless told otherwise; they share the threads."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of a server; every one past its limit is refused with a status of its own.

    host, port: where to listen; port 0 takes a free one. api_key: what clients must send as
    `Authorization: Bearer KEY`, None for no key, which only loopback may do. allow_urls: fetch
    pictures from public http(s) addresses. max_body: bytes of a request (413). max_pictures: in one
    request (422). queue: pictures that may wait for a worker (503). per_client: requests that one
    address may have running and waiting (429). deadline: seconds from a request's first byte to its
    answer (408 while it is still being sent, 504 afterwards).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allow_urls: bool = False
    max_body: int = 32 * 2**20
    max_pictures: int = 16
    queue: int = 64
    per_client: int = 32
    deadline: float = 60.0

    def __post_init__(self) -> None:
        """Raise RequestError when the server would be open to others without a key."""
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise RequestError("the API key is empty or not ASCII; set another one")
        if self.api_key is None and not self.is_loopback:
            raise RequestError(
                f"binding {self.host} opens the server to other machines; "
                f"set an API key in {API_KEY}, or bind 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def threads_each(threads: int | None, workers: int) -> int:
    """CPU threads for each of some workers, of those given in all, by default of all cores."""
    return max(1, (threads or os.cpu_count() or 1) // workers)
