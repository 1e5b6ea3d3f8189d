"""Fetch a picture from a public web address, and from nowhere else."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from idetex_edge.serve.problems import HttpError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS: Final = {"http": 80, "https": 443}
_CHUNK: Final = 65536


def is_public(address: Address) -> bool:
    """Whether an address belongs to a host on the internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if (inner is not None and not is_public(inner)) or address in _LOCAL_NAT64:
            return False
        if address in _NAT64 and not is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)):
            return False
    return address.is_global and not address.is_multicast


_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def fetch(
    url: str,
    *,
    max_bytes: int,
    deadline: float,
    allowed: Callable[[Address], bool] = is_public,
) -> bytes:
    """Get a file over http or https; redirects are refused.

    The name is resolved once and that address connected to, so that it cannot change between the
    check and the connection. deadline: as of `time.monotonic`. Raises HttpError when the address is
    not `allowed`, cannot be fetched in time, or holds more than `max_bytes`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        host = parts.hostname or ""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM) if host else []
    except (KeyError, ValueError, OSError):
        found, host, port = [], "", 0
    if not found:
        raise _problem(url, "no host of that name")
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not all(allowed(address) for address in addresses):
        raise _problem(url, "its host is not on the public internet")
    secure = urlsplit(url).scheme == "https"
    try:
        return _get(url, host, port, str(addresses[0]), secure, max_bytes, deadline)
    except (OSError, ValueError, http.client.HTTPException) as error:
        late = time.monotonic() >= deadline
        reason = "it took too long" if late else str(error) or type(error).__name__
        raise _problem(url, reason) from None


def _get(
    url: str, host: str, port: int, address: str, secure: bool, max_bytes: int, deadline: float
) -> bytes:
    connection = http.client.HTTPConnection(host, port)
    plain = socket.create_connection((address, port), _left(deadline))
    with plain:
        context = ssl.create_default_context()
        stream = (
            context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            if secure
            else plain
        )
        with stream, _cut_at(deadline, stream):
            if isinstance(stream, ssl.SSLSocket):
                stream.do_handshake()
            connection.sock = stream
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"User-Agent": "idetex-edge"})
            response = connection.getresponse()
            if response.status != 200:
                raise _problem(url, f"it answered {response.status}, not 200")
            parts_read: list[bytes] = []
            read = 0
            while chunk := response.read1(_CHUNK):
                parts_read.append(chunk)
                read += len(chunk)
                if read > max_bytes:
                    raise _problem(url, f"it holds over {max_bytes} bytes")
            _left(deadline)
            return b"".join(parts_read)


@contextmanager
def _cut_at(deadline: float, stream: socket.socket) -> Generator[None, None, None]:
    """Shut a connection at the deadline: a socket's own time limit starts anew with every byte."""

    def cut() -> None:
        with suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


def _problem(url: str, reason: str) -> HttpError:
    return HttpError(422, "url", f"cannot fetch {url[:200]!r}: {reason}; send the picture itself")
