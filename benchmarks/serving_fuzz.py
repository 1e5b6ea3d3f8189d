"""Send a server requests that are wrong in every way we know, and see that it stands.

    python benchmarks/serving_fuzz.py [--requests 1000] [--seed 0] [--address http://127.0.0.1:8000]

Without an address a server is started, and stopped at the end. Wrong types, wrong fields, broken
JSON, forms and pictures, decompression bombs, cut-off bodies, bodies that trickle in, clients that
leave. A failure is a 500, an answer that does not come, or a server that no longer answers; the
exit code is 1 when there was one.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import httpx
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from benchmarks.serving_process import served
from idetex_edge.cli.script import run

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "/v1/assess": ("images",),
    "/v1/score": ("images",),
    "/v1/ground": ("images", "region"),
    "/v1/ask": ("images", "question", "choices"),
    "/v1/describe": ("images", "type", "stream"),
    "/v1/chat/completions": ("model", "messages", "stream"),
    **dict.fromkeys(("/v1/models", "/healthz", "/metrics", "/", "/openapi.json", "/x"), ()),
}
"""What each path takes."""

ANSWER_SECONDS: Final = 60.0


def photograph(chance: random.Random) -> bytes:
    """A small picture of noise, in one of several formats."""
    size = (chance.randrange(8, 80), chance.randrange(8, 80))
    picture = Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))
    file = BytesIO()
    picture.save(file, chance.choice(("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")))
    return file.getvalue()


def bomb(chance: random.Random) -> bytes:
    """A PNG of a few bytes that says it has many pixels, or really has them."""
    side = chance.choice((2**14, 2**20, 2**31 - 1))
    head = struct.pack(">IIBBBBB", side, side, 8, chance.choice((0, 2, 6)), 0, 0, 0)
    data = zlib.compress(b"\0" * chance.choice((10, 10**7)))
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def broken(chance: random.Random) -> bytes:
    """A picture with bytes changed, cut off or made up."""
    data = bytearray(photograph(chance))
    for _ in range(chance.randrange(1, 20)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data) + 1)])


def noise(chance: random.Random) -> bytes:
    """Bytes that are no picture."""
    return chance.randbytes(chance.randrange(99))


PICTURES: Final = (*[photograph] * 6, bomb, broken, noise)


def value(chance: random.Random, depth: int = 0) -> Any:  # noqa: ANN401
    """Anything JSON can hold, and some that it cannot."""
    kind = chance.randrange(10 if depth < 4 else 8)
    simple: tuple[Any, ...] = (
        *(None, True, -1, 2**70, 1e308, float("nan"), "", "\0\ud800<|im_end|>" * 3),
    )
    if kind < 8:
        return simple[kind]
    if kind == 8:
        return [value(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {str(value(chance, 9)): value(chance, depth + 1) for _ in range(chance.randrange(5))}


def body(chance: random.Random, path: str) -> dict[str, Any]:
    """A JSON body that is right or nearly so."""
    pictures = [
        base64.b64encode(chance.choice(PICTURES)(chance)).decode()
        for _ in range(chance.randrange(1, 4))
    ]
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        for picture in pictures[:1]
    ]
    fields: dict[str, Any] = {
        "images": pictures,
        "question": "Which?",
        "choices": ["Noise", "Blur"],
        "region": [0, 0, chance.randrange(1, 20), chance.randrange(1, 20)],
        "type": "noise",
        "stream": chance.random() < 0.5,
        "model": "nano",
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "Where?"}]}],
    }
    fits = 0.95 if chance.random() < 0.7 else 0.5
    kept = {
        name: field
        for name, field in fields.items()
        if (chance.random() < fits) == (name in FIELDS[path])
    }
    if kept and chance.random() < 0.4:
        kept[chance.choice(list(kept))] = value(chance)
    return kept


def send_json(chance: random.Random, client: httpx.Client, path: str) -> int:
    """JSON, whole or damaged."""
    text = json.dumps(body(chance, path)).encode()
    if chance.random() < 0.3:
        text = text[: chance.randrange(len(text) + 1)] + chance.randbytes(chance.randrange(9))
    kind = chance.choice((*["application/json"] * 6, "text/plain", "x"))
    method = chance.choice((*["POST"] * 8, "GET", "PUT", "DELETE", "OPTIONS"))
    headers = {"Content-Type": kind}
    return client.request(method, path, content=text, headers=headers).status_code


def send_form(chance: random.Random, client: httpx.Client, path: str) -> int:
    """A form with files."""
    files = [
        (chance.choice((*["images"] * 9, "question", "x")), chance.choice(PICTURES)(chance))
        for _ in range(chance.randrange(1, 4))
    ]
    right: dict[str, Any] = {"question": "?", "choices": ["a", "b"], "region": [0, 0, 9, 9]}
    fields = {
        name: chance.choice((*[right.get(name, "1")] * 4, ["Noise", "Blur"], "", "x" * 3000))
        for name in ("question", "choices", "region", "type", "stream", "images", "y")
        if chance.random() < (0.9 if name in FIELDS[path] and name != "images" else 0.05)
    }
    return client.post(path, files=files, data=fields).status_code


def send_bytes(chance: random.Random, client: httpx.Client, path: str) -> int:
    """Bytes that are no request, or half of one; 0 where the server just hangs up."""
    parts = urlsplit(str(client.base_url))
    half = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {chance.choice((5, 10**6, 10**12, -1))}\r\n\r\n"
    ).encode()
    chunked = half.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX")
    sent = chance.choice((half, chunked, half[: chance.randrange(len(half))], b"\0" * 99))
    with socket.create_connection((str(parts.hostname), int(parts.port or 80)), 10) as stream:
        stream.sendall(sent)
        for _ in range(chance.randrange(20)):
            stream.sendall(chance.choice((b"{", b"zz\r\n", b"5\r\n12345\r\n", b"\r\n")))
            time.sleep(0.002)
        if chance.random() < 0.5:
            return 0
        stream.shutdown(socket.SHUT_WR)
        stream.settimeout(ANSWER_SECONDS)
        answer = stream.recv(100)
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


SENDERS: Final[tuple[Callable[[random.Random, httpx.Client, str], int], ...]] = (
    *(send_json, send_json, send_form, send_form, send_bytes),
)


def fuzz(address: str, requests: int, seed: int) -> Counter[int]:
    """Send so many requests; returns how often each status came, 0 where none did.

    Raises httpx.TimeoutException or TimeoutError when an answer does not come.
    """
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=address, timeout=ANSWER_SECONDS) as client:
        for number in track(
            range(requests), "sending", console=Console(stderr=True), transient=True
        ):
            chance = random.Random(f"{seed} {number}")
            sender, path = chance.choice(SENDERS), chance.choice(list(FIELDS))
            try:
                statuses[sender(chance, client, path)] += 1
            except (OSError, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if isinstance(error, TimeoutError):
                    raise
                statuses[0] += 1  # it hung up on nonsense
    return statuses


def main(
    requests: Annotated[int, typer.Option(min=1)] = 1000,
    seed: int = 0,
    address: Annotated[str | None, typer.Option(help="A server that runs already.")] = None,
) -> None:
    """Fuzz, print the statuses, and ask whether the server still answers."""
    with served() if address is None else nullcontext(address) as server:
        statuses = fuzz(server, requests, seed)
        after = httpx.get(f"{server}/readyz", timeout=10).status_code
    print(json.dumps({"statuses": dict(sorted(statuses.items())), "ready_afterwards": after}))
    sys.exit(int(statuses[500] > 0 or after != 200))


if __name__ == "__main__":
    run(main)
