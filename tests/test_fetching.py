"""Pictures are fetched from the internet alone, never from the server's own surroundings."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from idetex_edge.serve.fetching import Address, fetch, is_public
from idetex_edge.serve.problems import HttpError

DRIPS = 100
dripped: list[None] = []

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "fc00::1",
    "fe80::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture(scope="module")
def site() -> Generator[int]:
    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/drip":
                for _ in range(DRIPS):
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    dripped.append(None)
                    time.sleep(0.05)
                return
            moved = self.path == "/moved"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", "/file")
            self.end_headers()
            if self.path == "/slow":
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            elif not moved:
                self.wfile.write(self.path.encode() * 100)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def handle(self) -> None:
            with suppress(OSError):  # the client may have had enough
                super().handle()

    server = HTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def everywhere(address: Address) -> bool:
    return True


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]"]
)
def test_ways_to_write_this_machine(site: int, host: str) -> None:
    with pytest.raises(HttpError, match="cannot fetch") as caught:
        fetch(f"http://{host}:{site}/file", max_bytes=10_000, deadline=soon())
    assert caught.value.status == 422


def test_a_name_that_has_one_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(HttpError, match="not on the public internet"):
        fetch("http://example.org/", max_bytes=1, deadline=soon())


def test_a_file_is_fetched(site: int) -> None:
    url = f"http://127.0.0.1:{site}/file?a=b"
    got = fetch(url, max_bytes=10_000, deadline=soon(), allowed=everywhere)
    assert got == b"/file?a=b" * 100


@pytest.mark.parametrize(
    ("path", "seconds", "reason"),
    [
        ("moved", 10, "answered 302"),
        ("large" * 50, 10, "over 10000 bytes"),
        ("slow", 0.3, "took too long"),
    ],
)
def test_what_is_not_fetched(site: int, path: str, seconds: float, reason: str) -> None:
    with pytest.raises(HttpError, match=reason):
        fetch(
            f"http://127.0.0.1:{site}/{path}",
            max_bytes=10_000,
            deadline=soon(seconds),
            allowed=everywhere,
        )


def test_headers_that_drip_do_not_hold_it(site: int) -> None:
    dripped.clear()
    with pytest.raises(HttpError, match="took too long"):
        fetch(f"http://127.0.0.1:{site}/drip", max_bytes=1, deadline=soon(0.3), allowed=everywhere)
    assert len(dripped) < DRIPS


@pytest.mark.parametrize("url", ["ftp://8.8.8.8/", "http://", "http://[", "http://a:b/", "http:"])
def test_no_address(url: str) -> None:
    with pytest.raises(HttpError, match="cannot fetch"):
        fetch(url, max_bytes=1, deadline=soon())
